"""Bytes to WSGI environs, by llhttp (the parser of Node, through httptools). No sockets here: what is fed is parsed.

A body is collected whole before the application is called, because every body here is small. One that is longer than
`max_body_bytes`, or that is given up, is not collected: the application is called with its length alone, and refuses it in
its own words.
"""

from collections import deque
from io import BytesIO, RawIOBase
from urllib.parse import unquote_to_bytes

import httptools

from app.errors import ApiError
from app.serving.websocket import is_websocket

MAX_HEADER_BYTES = 32_768
MAX_HEADERS = 100
MAX_KNOWN_NAMES = 500
CHUNKS_TO_BODY = 8  # a byte in a chunk of its own takes six on the wire; more than that is no body
VERSIONS = ("1.1", "1.0")
UNCOLLECTED = "switchyard.uncollected"  # in the environ of a request whose body was given up


class BadRequest(Exception):
    """What came is no request that can be answered by the application; `status` is the answer before the close."""

    def __init__(self, status: str):
        super().__init__(status)
        self.status = status


class RequestParser:
    """`feed` bytes, then take environs from `ready`, in the order in which they were sent.

    `after_upgrade` holds what followed a request that asks for another protocol. `wants_continue` is set while a client
    waits for `100 Continue`. `is_reading` is True between the first byte of a request and its last; `unfinished_bytes` is what
    has come of it by then, and `unfinished` its environ once its head is whole. `error` is what came after the last good
    request; nothing may be fed then.
    """

    def __init__(self, base_environ: dict, max_body_bytes: int):
        self.ready: deque[dict] = deque()
        self.after_upgrade: bytes | None = None
        self.wants_continue = False
        self.is_reading = False
        self.error: BadRequest | None = None
        self._kept: dict | None = None  # the environ of a request whose wish to upgrade is passed over
        self._base = base_environ
        self._max_body = max_body_bytes
        self._is_in_head = False
        self._environ: dict | None = None
        self._fed = self._fed_to_head = self._last_fed = 0
        self._parser = httptools.HttpRequestParser(self)

    @property
    def unfinished(self) -> dict | None:
        return None if self._is_in_head else self._environ

    @property
    def unfinished_bytes(self) -> int:
        """At most as many: what has been fed since the request began. httptools keeps half a field without a word about it."""
        return self._fed if self.is_reading else 0

    def feed(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        self._last_fed = len(data)
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
            if self.is_reading:
                self._check_unfinished(data, was_in_head)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._kept is None:
                self.after_upgrade = rest
            else:
                self._go_on_without_upgrade(rest)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.error = cause if isinstance(cause, BadRequest) else BadRequest("400 Bad Request")

    def give_up_body(self) -> None:
        """What is `unfinished` becomes ready as it is. Its body may only be refused: to read it is an error."""
        self._environ[UNCOLLECTED] = True
        self._finish(Uncollected(), is_whole=False)

    def discard(self) -> None:
        """Nothing will be fed any more, and what is unfinished is not kept: parser and callbacks hold each other, so that it would
        wait for the collector."""
        self._environ, self._body, self._parser = None, [], None

    def _check_unfinished(self, data: bytes, was_in_head: bool) -> None:
        """A field of head or trailer is counted when it is whole, so one without an end is found here. And a first line without
        a version is whole for HTTP/0.9: its client waits for an answer now."""
        if self._is_in_head:
            self._fed_to_head += len(data) if was_in_head else 0
            if self._fed_to_head > MAX_HEADER_BYTES:
                self.error = BadRequest("431 Request Header Fields Too Large")
            elif self._url and data.endswith(b"\n") and self._parser.get_http_version() in ("0.0", "0.9"):
                self.error = BadRequest("400 Bad Request")
        elif self._fed > MAX_HEADER_BYTES + CHUNKS_TO_BODY * self._max_body:
            self.error = BadRequest("400 Bad Request")

    # What llhttp calls, in this order. `_environ` is None while nothing of a request is wanted.

    def on_message_begin(self) -> None:
        self.is_reading = self._is_in_head = True
        self._environ = dict(self._base)
        self._url = b""
        self._header_bytes = self._headers = self._body_bytes = self._fed_to_head = 0
        self._fed = self._last_fed
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key = _environ_key(name) if self._is_in_head else None  # a field after the body (a trailer) is no header
        if key is not None:
            text = value.decode("latin-1").strip(" \t")
            known = self._environ.get(key)
            if known is not None and key == "HTTP_HOST":
                raise BadRequest("400 Bad Request")
            self._environ[key] = text if known is None else f"{known},{text}"

    def on_headers_complete(self) -> None:
        environ, parser = self._environ, self._parser
        self._is_in_head = False
        if self._kept is not None:
            self._environ, self._kept = self._kept, None
            self._begin_body(self._environ)
            return
        version = parser.get_http_version()
        _check_head(environ, version)
        environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        environ["switchyard.keep_alive"] = parser.should_keep_alive()
        _set_target(environ, self._url)
        if parser.should_upgrade() and not is_websocket(environ):
            self._kept, self._environ = environ, None
        else:
            self._begin_body(environ)

    def _begin_body(self, environ: dict) -> None:
        if int(environ.get("CONTENT_LENGTH") or 0) > self._max_body:
            self._finish(BytesIO(), is_whole=False)
        else:
            self.wants_continue = environ.get("HTTP_EXPECT", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        if self._environ is None:
            return
        self._body_bytes += len(body)
        self._body.append(body)
        if self._body_bytes > self._max_body:
            self._environ["CONTENT_LENGTH"] = str(self._body_bytes)
            self._finish(BytesIO(), is_whole=False)

    def on_message_complete(self) -> None:
        if self._environ is not None:
            self._environ.setdefault("CONTENT_LENGTH", str(self._body_bytes))
            self._finish(BytesIO(b"".join(self._body)), is_whole=True)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Who asks for a protocol that is not spoken here (h2c, say) is answered in this one (RFC 9110, section 7.8). llhttp
        has stopped before the body; another parser reads it, from a head that says only how long it is."""
        framing = ""
        for name in ("TRANSFER_ENCODING", "CONTENT_LENGTH"):
            value = self._kept.get(f"HTTP_{name}") or self._kept.get(name)
            framing += f"{name.replace('_', '-')}: {value}\r\n" if value else ""
        self._parser = httptools.HttpRequestParser(self)
        self.feed(f"{self._kept['REQUEST_METHOD']} / HTTP/1.1\r\n{framing}\r\n".encode("latin-1") + rest)

    def _finish(self, body: BytesIO | RawIOBase, *, is_whole: bool) -> None:
        environ, self._environ, self._body = self._environ, None, []
        self.is_reading = self.wants_continue = False
        environ["wsgi.input"] = body
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # the chunks are undone, and CONTENT_LENGTH says how long the body is
        if not is_whole:
            environ["switchyard.keep_alive"] = False  # its remaining bytes are still on their way
        self.ready.append(environ)

    def _count_header(self, length: int) -> None:
        self._headers += 1
        self._header_bytes += length
        if self._header_bytes > MAX_HEADER_BYTES or self._headers > MAX_HEADERS:
            raise BadRequest("431 Request Header Fields Too Large")


class Uncollected(RawIOBase):
    """The body of a request that was called without it, because its credential did not hold. Only where the credential holds
    a moment later (keys that could not be fetched, say) does the application want to read it."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer):
        sentence = "The body was not read, since the credential could not be checked; send it again."
        raise ApiError("unavailable", sentence, retry_after_ms=1000)


def _check_head(environ: dict, version: str) -> None:
    """What llhttp lets pass and a proxy before us may read otherwise (RFC 9112, sections 2.3, 3.2 and 6.1)."""
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    has_wrong_encoding = encoding is not None and (version == "1.0" or encoding.lower() != "chunked")
    if version not in VERSIONS or has_wrong_encoding or (version == "1.1" and "HTTP_HOST" not in environ):
        raise BadRequest("400 Bad Request")


_KEYS: dict[bytes, str | None] = {b"Content-Type": "CONTENT_TYPE", b"Content-Length": "CONTENT_LENGTH"}


def _environ_key(name: bytes) -> str | None:
    """`X-Write-Key` -> `HTTP_X_WRITE_KEY`. A name with an underscore is dropped: it could pass for another one."""
    try:
        return _KEYS[name]
    except KeyError:
        text = name.decode("latin-1").upper()
        key = None if "_" in text else text.replace("-", "_")
        if key not in (None, "CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if len(_KEYS) < MAX_KNOWN_NAMES:  # clients choose the names, so what is remembered has an end
            _KEYS[name] = key
        return key


def _authority(url) -> str:
    """It counts instead of the Host header (RFC 9112, section 3.2.2)."""
    host = (url.host or b"").decode("latin-1")
    host = f"[{host}]" if ":" in host else host
    return host if url.port is None else f"{host}:{url.port}"


def _set_target(environ: dict, target: bytes) -> None:
    """Origin form (`/path?query`), and the absolute form that proxies use (RFC 9112, section 3.2)."""
    if not target.startswith(b"/") and target != b"*":
        try:
            url = httptools.parse_url(target)
            environ["HTTP_HOST"] = _authority(url)
            target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        except httptools.HttpParserInvalidURLError:
            raise BadRequest("400 Bad Request") from None
    path, _, query = target.partition(b"?")
    if b"%" in path:
        path = unquote_to_bytes(path)
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target.decode("latin-1")
