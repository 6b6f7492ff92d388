"""One connection: requests in, the application called, answers out, each answer in one send.

Headers and body leave together because two small sends on a connection wait for the client's delayed acknowledgement,
forty milliseconds each time.
"""

import sys
import time
from email.utils import formatdate
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY

from app.errors import ApiError
from app.serving.request import BadRequest, RequestParser
from app.serving.turns import Turn
from app.serving.websocket import has_opened, is_websocket, offer_websocket

RECV_BYTES = 65_536
LINGER_BYTES = 4_194_304
TOO_LONG_HEAD = "431 Request Header Fields Too Large"


class Connection:
    """`deadline` (monotonic seconds, or None while the application works) is enforced by the server."""

    def __init__(self, sock, address, server):
        self.socket = sock
        self.server = server
        self.deadline: float | None = None
        self.is_idle = False  # between two requests, with nothing of the next one read
        self._request_deadline: float | None = None  # set by its first byte: bytes that drip buy no time
        environ = {**server.base_environ, "REMOTE_ADDR": address[0] if address else "", "REMOTE_PORT": str(address[1]) if address else ""}
        environ["gunicorn.socket"] = sock
        self._parser = RequestParser(environ, server.max_body_bytes)
        self._turn = Turn()

    def serve(self) -> None:
        if self.socket.family.name != "AF_UNIX":
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        try:
            while (environ := self._next_request()) is not None:
                if self._parser.after_upgrade is not None and is_websocket(environ):
                    self._serve_websocket(environ)
                    return
                if not self._respond(environ):
                    self._linger()
                    return
                if self._parser.ready:
                    self._turn.check()
        except BadRequest as error:
            self._refuse(error)
            self._linger()

    def _next_request(self) -> dict | None:
        """None when the client has gone or the connection is no longer wanted."""
        parser = self._parser
        idle_deadline = time.monotonic() + self.server.keepalive_s  # empty lines between two requests do not move it
        while not parser.ready:
            if self.server.closed and not parser.is_reading:
                return None
            if parser.error is not None:
                raise parser.error
            self.deadline = self._request_deadline or idle_deadline
            started = time.monotonic()
            data = self._receive()
            self._turn.waited_since(started)
            self._turn.check()
            if not data:
                return None
            parser.feed(data)
            if parser.is_reading and self._request_deadline is None:
                self._request_deadline = time.monotonic() + self.server.read_timeout_s
            if parser.wants_continue:
                parser.wants_continue = False
                self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline = self._request_deadline = None
        return parser.ready.popleft()

    def _receive(self) -> bytes:
        self.is_idle = not self._parser.is_reading
        try:
            return self.socket.recv(RECV_BYTES)
        except OSError:
            if not (self.is_idle and self.server.closed):
                raise
            return self.socket.recv(RECV_BYTES)  # gevent wakes us with an error; what had arrived before is still there
        finally:
            self.is_idle = False

    def _serve_websocket(self, environ: dict) -> None:
        """The application opens it, or gives an ordinary answer; what came after the head is no request in either case."""
        environ["switchyard.keep_alive"] = False
        websocket = offer_websocket(self, environ, self._parser.after_upgrade)
        if websocket is not None:
            self._respond(environ)
            websocket.close()
        if not has_opened(environ):
            self._linger()

    def _respond(self, environ: dict) -> bool:
        """True when the connection may be used again."""
        response = Response(self, environ)
        result = None
        try:
            result = self.server.application(environ, response.start)
            if not has_opened(environ):
                response.send(result)
        except OSError:
            return False  # the client has gone
        except Exception:
            self.server.log_exception(sys.exc_info())
            if response.head_sent or has_opened(environ):
                return False
            self._refuse(None)
            return False
        finally:
            if hasattr(result, "close"):
                result.close()
        return response.keep_alive

    def _refuse(self, error: BadRequest | None) -> None:
        """The catalogue's shape for what never reached the application, or what the application let fall."""
        status = error.status if error else "500 Internal Server Error"
        if error is None:
            answer = ApiError("internal")
        elif status == TOO_LONG_HEAD:
            answer = ApiError("payload_too_large", "The request's headers are larger than allowed.")
        else:
            answer = ApiError("bad_request", "This is not a request that HTTP/1.1 allows.")
        self.deadline = time.monotonic() + self.server.read_timeout_s
        self.socket.sendall(self.server.render_error(status, answer))

    def _linger(self) -> None:
        """Let the client read the answer before the connection goes: closing on unread bytes would reset it."""
        self.deadline = time.monotonic() + 2
        try:
            self.socket.shutdown(SHUT_WR)
            total = 0
            while total < LINGER_BYTES and (data := self.socket.recv(RECV_BYTES)):
                total += len(data)
        except OSError:
            return  # gone already, which is what we waited for


class Response:
    """WSGI's start_response, and the bytes that become of it (PEP 3333)."""

    def __init__(self, connection: Connection, environ: dict):
        self._connection = connection
        self._is_head = environ["REQUEST_METHOD"] == "HEAD"
        self._is_http_11 = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self.keep_alive = environ["switchyard.keep_alive"] and not connection.server.closed
        self.head_sent = False
        self._status = ""
        self._headers: list[tuple[str, str]] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info=None):
        if exc_info and self.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, headers
        return self._write

    def send(self, result) -> None:
        """A result of known length leaves in one send, any other in chunks as it comes."""
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
            self._send(_chunk(chunk) if self._is_chunked else chunk)

    def _send_head(self, first: bytes, length: int | None) -> None:
        lines = [f"HTTP/1.1 {self._status}\r\n"]
        has_date = False
        has_length = self._status[:1] == "1" or self._status[:3] in ("204", "304")
        for name, value in self._headers:
            lines.append(f"{name}: {value}\r\n")
            lowered = name.lower()
            if lowered == "content-length":
                has_length = True
            elif lowered == "date":
                has_date = True
        if not has_date:
            lines.append(f"Date: {http_date()}\r\n")
        self._is_chunked = False
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
        head = "".join(lines).encode("latin-1")
        self.head_sent = True
        if self._is_head:
            first = b""
        self._send(head + (_chunk(first) if self._is_chunked and first else first))

    def _send(self, data: bytes) -> None:
        connection = self._connection
        connection.deadline = time.monotonic() + connection.server.write_timeout_s
        sent = connection.socket.send(data)
        if sent < len(data):
            connection.socket.sendall(data[sent:])  # it asks for the buffer's size first, which a small answer need not
        connection.deadline = None


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_date = (0, "")


def http_date() -> str:
    """The Date header, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]
