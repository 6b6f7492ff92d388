"""Translates the head of a request into WSGI's environ, and makes the checks that llhttp does not make."""

from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from app.serving.rejections import not_http

MAX_CACHED_NAMES = 500  # clients choose the names of headers, so the cache needs a limit
VERSIONS = ("1.1", "1.0")

_KEYS: dict[bytes, str | None] = {b"Content-Type": "CONTENT_TYPE", b"Content-Length": "CONTENT_LENGTH"}


def environ_key(name: bytes) -> str | None:
    """Return the key of a header: `HTTP_X_WRITE_KEY` for `X-Write-Key`.

    Return None for a name with an underscore, because its key would be that of another header."""
    try:
        return _KEYS[name]
    except KeyError:
        text = name.decode("latin-1").upper()
        key = None if "_" in text else text.replace("-", "_")
        if key not in (None, "CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if len(_KEYS) < MAX_CACHED_NAMES:
            _KEYS[name] = key
        return key


def check_head(environ: dict, version: str) -> None:
    """Raise Rejection where llhttp accepts a head that a proxy may read differently (RFC 9112, sections 2.3, 3.2 and 6.1)."""
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    has_wrong_encoding = encoding is not None and (version == "1.0" or encoding.lower() != "chunked")
    if version not in VERSIONS or has_wrong_encoding or (version == "1.1" and "HTTP_HOST" not in environ):
        raise not_http()


def set_target(environ: dict, target: bytes) -> None:
    """Set path and query from `/path?query`, or from the absolute form that proxies use (RFC 9112, section 3.2). Raises Rejection."""
    if not target.startswith(b"/") and target != b"*":
        try:
            url = httptools.parse_url(target)
            environ["HTTP_HOST"] = _authority(url)
            target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        except httptools.HttpParserInvalidURLError:
            raise not_http() from None
    path, _, query = target.partition(b"?")
    if b"%" in path:
        path = unquote_to_bytes(path)
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target.decode("latin-1")


def _authority(url: Any) -> str:
    """Return the host and port of an absolute target, which replace the Host header (RFC 9112, section 3.2.2)."""
    host = (url.host or b"").decode("latin-1")
    host = f"[{host}]" if ":" in host else host
    return host if url.port is None else f"{host}:{url.port}"
