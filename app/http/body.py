"""The bytes of a request, inflated where they came as gzip, and never more of them than allowed: a small body that
inflates to gigabytes costs no more than the limit."""

import zlib
from typing import Any

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from app.errors import ApiError
from app.serving.fairness import TimeSlice, yield_before_large, yield_if_slice_is_over

PIECE_BYTES = 65_536  # inflated or read at once
MOST_TIMES_LONGER = 32  # by which a body may grow; text rarely grows by more than ten
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
    """All members of the gzip, one after another (RFC 1952, section 2.2): a tool that streams may write several. Zero bytes behind a
    member are padding, as gzip itself takes them. A large body waits for its turn, and yields between its pieces."""
    yield_before_large(len(raw))
    yield_if_slice_is_over(len(raw) * MOST_TIMES_LONGER)
    inflater, time_slice = _Inflater(max_bytes), TimeSlice.of_loop_iteration()
    for start in range(0, len(raw), PIECE_BYTES):
        inflater.feed(raw[start : start + PIECE_BYTES], time_slice)
    return inflater.body()


class _Inflater:
    """Member after member, a piece at a time."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._size = 0
        self._members = 0
        self._unzip: Any = None  # of the member that has not ended yet

    def feed(self, piece: bytes, time_slice: TimeSlice) -> None:
        while piece:
            if self._unzip is None:
                piece = self._begin_member(piece)
            else:
                piece = self._inflate(piece)
                time_slice.yield_if_over()

    def body(self) -> bytes:
        if self._unzip is not None or self._members == 0:
            raise ApiError("bad_request", "The gzip body ends too early.")
        return b"".join(self._chunks)

    def _begin_member(self, piece: bytes) -> bytes:
        """What of the piece belongs to it; nothing, where all of it is padding."""
        piece = piece.lstrip(b"\0") if self._members else piece
        if piece:
            self._members += 1
            if self._members > MAX_MEMBERS:
                raise ApiError("bad_request", f"The gzip body has more than {MAX_MEMBERS} members.")
            self._unzip = zlib.decompressobj(wbits=31)
        return piece

    def _inflate(self, piece: bytes) -> bytes:
        """What of the piece is left: for another call, or for the next member."""
        try:
            chunk = self._unzip.decompress(piece, min(PIECE_BYTES, self._max_bytes + 1 - self._size))
        except zlib.error:
            raise ApiError("bad_request", "The body is not valid gzip.") from None
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._unzip.eof:
            rest, self._unzip = self._unzip.unused_data, None
            return rest
        return self._unzip.unconsumed_tail


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("payload_too_large", f"The body may have at most {max_bytes} bytes, before and after inflating.")
