"""Parses bytes into WSGI environs with llhttp (Node's parser, through httptools). It does no I/O: the caller feeds it bytes.

A request is ready when its body is complete, because every body here is small. A body that is longer than `max_body_bytes`, or that the
caller gives up, is not read: the application gets only its length, and rejects the request.
"""

from collections import deque
from io import BytesIO, RawIOBase
from typing import Any

import httptools

from app.serving.rejections import Rejection, headers_too_large, not_http
from app.serving.request_environ import check_head, environ_key, set_target
from app.serving.unread_body import BODY_NOT_READ, UnreadBody
from app.serving.websocket import is_websocket

MAX_HEADER_BYTES = 32_768
MAX_HEADERS = 100
CHUNKED_TO_BODY = 8  # bytes received for each byte of a chunked body, at most; a chunk of one byte takes six


class RequestParser:
    """Call `feed` with received bytes, then take environs from `ready`, in the order in which the client sent the requests.

    `is_reading` is True from the first byte of a request to its last. `wants_continue` is True while the client waits for
    `100 Continue`. `after_upgrade` holds the bytes behind a request that opens a websocket. `error` is the Rejection of bytes that are
    not a valid request; feed nothing after it.
    """

    def __init__(self, base_environ: dict, max_body_bytes: int):
        self.ready: deque[dict] = deque()
        self.after_upgrade: bytes | None = None
        self.wants_continue = False
        self.is_reading = False
        self.error: Rejection | None = None
        self._without_upgrade: dict | None = None  # the environ of a request that asks for an unknown protocol; it is answered in HTTP/1.1
        self._base = base_environ
        self._max_body = max_body_bytes
        self._is_in_head = False
        self._environ: dict | None = None
        self._body: list[bytes] = []
        self._fed = self._fed_to_head = self._last_fed = 0
        self._parser: Any = httptools.HttpRequestParser(self)  # None after `discard`

    @property
    def unfinished(self) -> dict | None:
        """The environ of the request that is being read, or None while its head is not complete."""
        return None if self._is_in_head else self._environ

    @property
    def unfinished_bytes(self) -> int:
        """An upper bound of the memory of the request that is being read: all bytes fed since it began.

        httptools does not tell how many bytes of an incomplete header it holds."""
        return self._fed if self.is_reading else 0

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises nothing: see `error`."""
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
        """Make the `unfinished` request ready without its body, so that the application rejects it. Reading the body raises ApiError."""
        environ = self.unfinished
        assert environ is not None
        environ[BODY_NOT_READ] = True
        self._finish(environ, UnreadBody(), is_whole=False)

    def discard(self) -> None:
        """Free the bytes of the unfinished request. Feed nothing afterwards.

        Parser and callbacks refer to each other, so without this the bytes would stay until a garbage collection."""
        self._environ, self._body, self._parser = None, [], None

    def _check_unfinished(self, data: bytes, was_in_head: bool) -> None:
        """Set `error` where llhttp would wait for ever: in a field without an end, and after a request line of HTTP/0.9.

        HTTP/0.9 has no version and no headers, so its client waits for the answer already."""
        if self._is_in_head:
            self._fed_to_head += len(data) if was_in_head else 0
            if self._fed_to_head > MAX_HEADER_BYTES:
                self.error = headers_too_large()
            elif self._url and data.endswith(b"\n") and self._parser.get_http_version() in ("0.0", "0.9"):
                self.error = not_http()
        elif self._fed > MAX_HEADER_BYTES + CHUNKED_TO_BODY * self._max_body:
            self.error = not_http()

    # llhttp's callbacks, in the order of their calls. `_environ` is None behind the head while the rest of the request is ignored.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.is_reading = self._is_in_head = True
        self._environ = dict(self._base)
        self._url = b""
        self._header_bytes = self._headers = self._body_bytes = self._fed_to_head = 0
        self._fed = self._last_fed
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header. A trailer (a field after the body) is ignored."""
        self._count_header(len(name) + len(value))
        environ = self._environ
        key = environ_key(name) if self._is_in_head else None
        if key is not None and environ is not None:
            text = value.decode("latin-1").strip(" \t")
            known = environ.get(key)
            if known is not None and key == "HTTP_HOST":
                raise not_http()
            environ[key] = text if known is None else f"{known},{text}"

    def on_headers_complete(self) -> None:
        """End the head: set the rest of the environ, and begin the body."""
        environ, parser = self._environ, self._parser
        assert environ is not None
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
            self._finish(environ, BytesIO(), is_whole=False)
        else:
            self.wants_continue = environ.get("HTTP_EXPECT", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        if self._environ is None:
            return
        self._body_bytes += len(body)
        self._body.append(body)
        if self._body_bytes > self._max_body:
            self._environ["CONTENT_LENGTH"] = str(self._body_bytes)
            self._finish(self._environ, BytesIO(), is_whole=False)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._environ is not None:
            self._environ.setdefault("CONTENT_LENGTH", str(self._body_bytes))
            self._finish(self._environ, BytesIO(b"".join(self._body)), is_whole=True)

    def _continue_without_upgrade(self, environ: dict, rest: bytes) -> None:
        """Serve a request that asks for an unknown protocol, such as h2c, in HTTP/1.1 (RFC 9110, section 7.8).

        llhttp stops before the body. Another parser reads the body, after a head that declares only the body's length.
        """
        framing = ""
        for name in ("TRANSFER_ENCODING", "CONTENT_LENGTH"):
            value = environ.get(f"HTTP_{name}") or environ.get(name)
            framing += f"{name.replace('_', '-')}: {value}\r\n" if value else ""
        self._parser = httptools.HttpRequestParser(self)
        self.feed(f"{environ['REQUEST_METHOD']} / HTTP/1.1\r\n{framing}\r\n".encode("latin-1") + rest)

    def _finish(self, environ: dict, body: BytesIO | RawIOBase, *, is_whole: bool) -> None:
        self._environ, self._body = None, []
        self.is_reading = self.wants_continue = False
        environ["wsgi.input"] = body
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # the chunks are joined, and CONTENT_LENGTH is the body's length
        if not is_whole:
            environ["switchyard.keep_alive"] = False  # the rest of the body has not been read
        self.ready.append(environ)

    def _count_header(self, length: int) -> None:
        self._headers += 1
        self._header_bytes += length
        if self._header_bytes > MAX_HEADER_BYTES or self._headers > MAX_HEADERS:
            raise headers_too_large()
