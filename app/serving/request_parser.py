"""Bytes to WSGI environs, by llhttp (Node's parser, through httptools). Has no socket: the caller feeds it bytes.

A body is read completely before the application is called, because every body here is small. A body that is longer than
`max_body_bytes`, or that is given up, is not read: the application is called with its length alone, and rejects it.
"""

from collections import deque
from io import BytesIO, RawIOBase

import httptools

from app.errors import ApiError
from app.serving.rejections import Rejection, headers_too_large, not_http
from app.serving.request_environ import check_head, environ_key, set_target
from app.serving.websocket import is_websocket

MAX_HEADER_BYTES = 32_768
MAX_HEADERS = 100
CHUNKS_TO_BODY = 8  # a byte in a chunk of its own takes six bytes; a client that sends more than this sends no sensible body
UNCOLLECTED = "switchyard.uncollected"  # in the environ of a request whose body was given up


class RequestParser:
    """`feed` bytes, then take environs from `ready`, in the order in which they were sent.

    `after_upgrade` holds the bytes behind a request that asks for another protocol. `wants_continue` is set while a client waits for
    `100 Continue`. `is_reading` is True from the first byte of a request to its last. During that time `unfinished_bytes` is the number
    of bytes received, and `unfinished` is its environ once the head is complete. `error` is the Rejection of what followed the last valid
    request; do not feed anything after it.
    """

    def __init__(self, base_environ: dict, max_body_bytes: int):
        self.ready: deque[dict] = deque()
        self.after_upgrade: bytes | None = None
        self.wants_continue = False
        self.is_reading = False
        self.error: Rejection | None = None
        self._without_upgrade: dict | None = None  # the environ of a request that is answered without the upgrade it asks for
        self._base = base_environ
        self._max_body = max_body_bytes
        self._is_in_head = False
        self._environ: dict | None = None
        self._body: list[bytes] = []
        self._fed = self._fed_to_head = self._last_fed = 0
        self._parser = httptools.HttpRequestParser(self)

    @property
    def unfinished(self) -> dict | None:
        """The environ of the request that is being read, None while its head is not complete."""
        return None if self._is_in_head else self._environ

    @property
    def unfinished_bytes(self) -> int:
        """An upper bound: all bytes fed since the request began. httptools does not tell how much of a partial header it holds."""
        return self._fed if self.is_reading else 0

    def feed(self, data: bytes) -> None:
        """Parse what has arrived."""
        was_in_head = self._is_in_head
        self._last_fed = len(data)
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
            if self.is_reading:
                self._check_unfinished(data, was_in_head)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._without_upgrade is None:
                self.after_upgrade = rest
            else:
                self._continue_without_upgrade(self._without_upgrade, rest)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.error = cause if isinstance(cause, Rejection) else not_http()

    def give_up_body(self) -> None:
        """Make the `unfinished` request ready without its body. The application may only reject it: reading the body raises ApiError."""
        self._environ[UNCOLLECTED] = True
        self._finish(Uncollected(), is_whole=False)

    def discard(self) -> None:
        """Free what is unfinished; nothing is fed afterwards. Without this, the cycle of parser and callbacks would keep the bytes
        until a garbage collection."""
        self._environ, self._body, self._parser = None, [], None

    def _check_unfinished(self, data: bytes, was_in_head: bool) -> None:
        """Find what llhttp would wait for without end: a field without an end, and a first line of HTTP/0.9, which has no version and
        whose client waits for the answer already."""
        if self._is_in_head:
            self._fed_to_head += len(data) if was_in_head else 0
            if self._fed_to_head > MAX_HEADER_BYTES:
                self.error = headers_too_large()
            elif self._url and data.endswith(b"\n") and self._parser.get_http_version() in ("0.0", "0.9"):
                self.error = not_http()
        elif self._fed > MAX_HEADER_BYTES + CHUNKS_TO_BODY * self._max_body:
            self.error = not_http()

    # llhttp's callbacks, in the order of their calls. `_environ` is None while the request that is being parsed is ignored.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.is_reading = self._is_in_head = True
        self._environ = dict(self._base)
        self._url = b""
        self._header_bytes = self._headers = self._body_bytes = self._fed_to_head = 0
        self._fed = self._last_fed
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Part of the target; it may come in several."""
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head. A field after the body (a trailer) is ignored."""
        self._count_header(len(name) + len(value))
        key = environ_key(name) if self._is_in_head else None
        if key is not None:
            text = value.decode("latin-1").strip(" \t")
            known = self._environ.get(key)
            if known is not None and key == "HTTP_HOST":
                raise not_http()
            self._environ[key] = text if known is None else f"{known},{text}"

    def on_headers_complete(self) -> None:
        """The head is complete."""
        environ, parser = self._environ, self._parser
        self._is_in_head = False
        if self._without_upgrade is not None:
            self._environ, self._without_upgrade = self._without_upgrade, None
            self._begin_body(self._environ)
            return
        version = parser.get_http_version()
        check_head(environ, version)
        environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        environ["switchyard.keep_alive"] = parser.should_keep_alive()
        set_target(environ, self._url)
        if parser.should_upgrade() and not is_websocket(environ):
            self._without_upgrade, self._environ = environ, None
        else:
            self._begin_body(environ)

    def _begin_body(self, environ: dict) -> None:
        if int(environ.get("CONTENT_LENGTH") or 0) > self._max_body:
            self._finish(BytesIO(), is_whole=False)
        else:
            self.wants_continue = environ.get("HTTP_EXPECT", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        if self._environ is None:
            return
        self._body_bytes += len(body)
        self._body.append(body)
        if self._body_bytes > self._max_body:
            self._environ["CONTENT_LENGTH"] = str(self._body_bytes)
            self._finish(BytesIO(), is_whole=False)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._environ is not None:
            self._environ.setdefault("CONTENT_LENGTH", str(self._body_bytes))
            self._finish(BytesIO(b"".join(self._body)), is_whole=True)

    def _continue_without_upgrade(self, environ: dict, rest: bytes) -> None:
        """Answer a request for an unknown protocol (h2c, say) in HTTP/1.1 (RFC 9110, section 7.8).

        llhttp has stopped before the body. Another parser reads it, from a head that declares only the body's length.
        """
        framing = ""
        for name in ("TRANSFER_ENCODING", "CONTENT_LENGTH"):
            value = environ.get(f"HTTP_{name}") or environ.get(name)
            framing += f"{name.replace('_', '-')}: {value}\r\n" if value else ""
        self._parser = httptools.HttpRequestParser(self)
        self.feed(f"{environ['REQUEST_METHOD']} / HTTP/1.1\r\n{framing}\r\n".encode("latin-1") + rest)

    def _finish(self, body: BytesIO | RawIOBase, *, is_whole: bool) -> None:
        environ, self._environ, self._body = self._environ, None, []
        self.is_reading = self.wants_continue = False
        environ["wsgi.input"] = body
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # the chunks are joined, and CONTENT_LENGTH is the body's length
        if not is_whole:
            environ["switchyard.keep_alive"] = False  # the rest of the body is still to come
        self.ready.append(environ)

    def _count_header(self, length: int) -> None:
        self._headers += 1
        self._header_bytes += length
        if self._header_bytes > MAX_HEADER_BYTES or self._headers > MAX_HEADERS:
            raise headers_too_large()


class Uncollected(RawIOBase):
    """The body of a request that was given up because its credential was not valid.

    The application reads it only where the credential has become valid in the meantime, for instance because keys could be fetched.
    """

    def readable(self) -> bool:
        """Return True, so that `read` calls `readinto`."""
        return True

    def readinto(self, _buffer):
        """Raise ApiError `unavailable`."""
        sentence = "The body was not read, since the credential could not be checked; send it again."
        raise ApiError("unavailable", sentence, retry_after_ms=1000)
