"""The answer to one request: WSGI's start_response, and the bytes that the client receives (PEP 3333, RFC 9112).

Head and body are sent together, because the second of two small sends would wait forty milliseconds for the client's delayed
acknowledgement.
"""

import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.serving.connection import Connection


class Response:
    """The answer of the application. `status` stays empty where it opened a websocket. `sent` is the number of bytes of the body."""

    def __init__(self, connection: "Connection", environ: dict):
        self._connection = connection
        self._is_head = environ["REQUEST_METHOD"] == "HEAD"
        self._is_http_11 = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self._is_chunked = False
        self.keep_alive = environ["switchyard.keep_alive"] and not connection.server.closed
        self.head_sent = False
        self.status = ""
        self.sent = 0
        self.headers: list[tuple[str, str]] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Set status and headers. This is WSGI's start_response."""
        if exc_info and self.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self.status, self.headers = status, headers
        return self._write

    def send(self, result: Iterable[bytes]) -> None:
        """Send the application's result: a list in one piece, any other iterable chunk by chunk."""
        if isinstance(result, (list, tuple)):
            body = b"".join(result)
            self._send_head(body, length=len(body))
            return
        for chunk in result:
            if chunk:
                self._write(chunk)
        if not self.head_sent:
            self._send_head(b"", length=0)
        elif self._is_chunked:
            self._send(b"0\r\n\r\n")

    def _write(self, chunk: bytes) -> None:
        if not self.head_sent:
            self._send_head(chunk, length=None)
        elif not self._is_head:
            self.sent += len(chunk)
            self._send(_chunk(chunk) if self._is_chunked else chunk)

    def _send_head(self, first: bytes, length: int | None) -> None:
        """Send the head and `first`, the start of the body. `length` is the length of the whole body, or None where that is not known."""
        head = self._head(length)
        self.head_sent = True
        if self._is_head:
            first = b""
        self.sent = len(first)
        self._send(head + (_chunk(first) if self._is_chunked and first else first))

    def _head(self, length: int | None) -> bytes:
        lines = [f"HTTP/1.1 {self.status}\r\n"]
        has_date = False
        has_length = self.status[:1] == "1" or self.status[:3] in ("204", "304")
        for name, value in self.headers:
            lines.append(f"{name}: {value}\r\n")
            lowered = name.lower()
            if lowered == "content-length":
                has_length = True
            elif lowered == "date":
                has_date = True
        if not has_date:
            lines.append(f"Date: {http_date()}\r\n")
        if not has_length:
            if length is not None:
                lines.append(f"Content-Length: {length}\r\n")
            elif self._is_http_11:
                self._is_chunked = True
                lines.append("Transfer-Encoding: chunked\r\n")
            else:
                self.keep_alive = False
        if not (self.keep_alive and self._is_http_11):
            lines.append(f"Connection: {'keep-alive' if self.keep_alive else 'close'}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

    def _send(self, data: bytes) -> None:
        connection = self._connection
        connection.deadline = time.monotonic() + connection.server.write_timeout_s
        sent = connection.socket.send(data)
        if sent < len(data):
            connection.socket.sendall(data[sent:])  # sendall asks for the buffer's size first, so it is slower for a small answer
        connection.deadline = None


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_date = (0, "")


def http_date() -> str:
    """Return the value of the Date header. It is formatted once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]
