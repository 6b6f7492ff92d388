"""The bytes of a request, inflated where they came as gzip, and never more of them than allowed: a small body that
inflates to gigabytes costs no more than the limit."""

import zlib

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import ApiError

MAX_MEMBERS = 64  # of a gzip: an empty one is 20 bytes, and each costs as much as a request


def read_body(max_bytes: int) -> bytes:
    """Raises ApiError `payload_too_large`, `unsupported_media_type`, or `bad_request` for bytes that are no gzip."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise ApiError("unsupported_media_type", "Content-Encoding must be gzip or absent.")
    request.max_content_length = max_bytes
    try:
        raw = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise _too_large(max_bytes) from None
    return inflate(raw, max_bytes) if encoding in ("gzip", "x-gzip") else raw


def inflate(raw: bytes, max_bytes: int) -> bytes:
    """All members of the gzip, one after another (RFC 1952, section 2.2): a tool that streams may write several."""
    body = b""
    for _ in range(MAX_MEMBERS):
        unzip = zlib.decompressobj(wbits=31)
        try:
            body += unzip.decompress(raw, max_bytes + 1 - len(body))
        except zlib.error:
            raise ApiError("bad_request", "The body is not valid gzip.") from None
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not unzip.eof:
            raise ApiError("bad_request", "The gzip body ends too early.")
        raw = unzip.unused_data
        if not raw:
            return body
    raise ApiError("bad_request", f"The gzip body has more than {MAX_MEMBERS} members.")


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("payload_too_large", f"The body may have at most {max_bytes} bytes, before and after inflating.")
