"""One connection: requests in, the application called, answers out, each answer in one send.

Headers and body leave together because two small sends on a connection wait for the client's delayed acknowledgement,
forty milliseconds each time.
"""

import sys
import time
from contextlib import suppress
from email.utils import formatdate
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY

from gevent.socket import cancel_wait

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of
from app.serving.fairness import TimeSlice, yield_if_slice_is_over
from app.serving.request_parser import BadRequest, RequestParser
from app.serving.sender_check import is_small
from app.serving.unfinished_bytes import ConnectionBytes
from app.serving.websocket import ENGINE_IO_PATH, has_opened, is_websocket, offer_websocket

RECV_BYTES = 65_536
LINGER_BYTES = 4_194_304
TURNED_AWAY_S = 0.2  # that long a connection too many waits for its request
TOO_LONG_HEAD = "431 Request Header Fields Too Large"


class TurnedAway(Exception):
    """An honest request, perhaps, but there is no room for it: `error` is the answer before the close."""

    def __init__(self, status: str, error: ApiError):
        super().__init__(status)
        self.status = status
        self.error = error


def too_many_connections() -> TurnedAway:
    sentence = "This address has too many connections open; close some, and try again."
    return TurnedAway("429 Too Many Requests", ApiError("rate_limited", sentence, retry_after_ms=1000))


def too_many_unfinished() -> TurnedAway:
    sentence = "Too many requests are unfinished, and this one was among the longest; send it again, without pauses."
    return TurnedAway("503 Service Unavailable", ApiError("unavailable", sentence, retry_after_ms=1000))


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
        self.address = network_of(environ["REMOTE_ADDR"])
        self.holding = ConnectionBytes(self.address, self.lose)
        self._has_asked = False  # whose the unfinished request is
        self._origin: str | None = None  # of the page that sent the last request, where it is known
        self._parser = RequestParser(environ, server.max_body_bytes)
        self._time_slice = TimeSlice.of_cpu_time()

    def serve(self) -> None:
        if self.socket.family.name != "AF_UNIX":
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._begin_tls()
        try:
            while (environ := self._next_request()) is not None:
                if not self._serve_in_share(environ):
                    return
                if self._parser.ready:
                    self._time_slice.yield_if_over()
        except BadRequest as error:
            self._refuse(error)
            self._linger()
        except TurnedAway as refusal:
            self._send_error(refusal.status, refusal.error)
            self._linger()

    def turn_away(self, refusal: TurnedAway) -> None:
        """Instead of `serve`: what the client asks is read, so that the close does not reset the answer, but not for long."""
        self.socket.settimeout(TURNED_AWAY_S)
        self._begin_tls()
        with suppress(TimeoutError):
            self.socket.recv(RECV_BYTES)
        self._send_error(refusal.status, refusal.error)

    def wake(self) -> None:
        """Whoever waits for this client's bytes goes on at once. Not by shutdown: what it has sent, and TLS, stay readable."""
        cancel_wait(self.socket._read_event)  # what gevent's own shutdown does first

    def lose(self) -> None:
        """Others need the room: what is unfinished goes at once, the connection as soon as that was said."""
        self.server.count_refused("unfinished", self.holding.party)
        self._parser.discard()
        self.wake()

    def end(self) -> None:
        self._end_tls()
        self.release()
        self._parser.discard()
        self.holding.drop = None

    def _begin_tls(self) -> None:
        if self.server.ssl_enabled:
            self.deadline = time.monotonic() + self.server.read_timeout_s
            self.socket.do_handshake()

    def _end_tls(self) -> None:
        """Says that nothing was cut off (close_notify), and waits for no answer to it."""
        if self.server.ssl_enabled:
            with suppress(OSError, ValueError):
                self.socket.settimeout(0)
                self.socket.unwrap()

    def release(self) -> None:
        """Of the request that was answered nothing is held any more."""
        unfinished = self.server.unfinished
        unfinished.resize(self.holding, 0, 0)
        if self.holding.is_known:
            unfinished.identify(self.holding, self.address, False)
        self.holding.is_in_work = False

    def _serve_in_share(self, environ: dict) -> bool:
        """True when the connection may be used again. Behind a trusted proxy the client's share is taken for the request."""
        server = self.server
        if not server.trusted_proxies:
            return self._serve(environ)
        self._origin = environ.get("HTTP_ORIGIN")
        client = forwarded_for(environ, server.trusted_proxies)
        client = None if client is None else network_of(client)
        if not server.shares.enter(client):
            server.count_refused("connections", client)
            raise too_many_connections()
        try:
            return self._serve(environ)
        finally:
            server.shares.leave(client)

    def _serve(self, environ: dict) -> bool:
        if self._parser.after_upgrade is not None and is_websocket(environ):
            self._serve_websocket(environ)
            return False
        if self._respond(environ):
            return True
        self._linger()
        return False

    def _next_request(self) -> dict | None:
        """None when the client has gone or the connection is no longer wanted."""
        parser = self._parser
        idle_deadline = time.monotonic() + self.server.keepalive_s  # empty lines between two requests do not move it
        if self.holding.bytes and not parser.is_reading:
            self.release()
        while not parser.ready:
            if self.server.closed and not parser.is_reading:
                return None
            if parser.error is not None:
                raise parser.error
            self._refuse_if_dropped()
            self.deadline = self._request_deadline or idle_deadline
            started = time.monotonic()
            data = self._receive()
            self._time_slice.restart_if_waited(started)
            self._time_slice.yield_if_over()
            if not data:
                return None
            yield_if_slice_is_over(len(data))
            self._refuse_if_dropped()  # while others had their turn
            parser.feed(data)
            if parser.is_reading:
                self._hold()
            if parser.wants_continue:
                parser.wants_continue = False
                self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline = self._request_deadline = None
        self._has_asked = False
        self.holding.is_in_work = not parser.is_reading
        return parser.ready.popleft()

    def _refuse_if_dropped(self) -> None:
        if self.holding.is_dropped:
            raise too_many_unfinished()

    def _hold(self) -> None:
        """More of this request is still to come."""
        parser = self._parser
        if self._request_deadline is None:
            self._request_deadline = time.monotonic() + self.server.read_timeout_s
        if (environ := parser.unfinished) is not None and not self._has_asked and not is_small(environ):
            self._ask(environ)
        self.server.unfinished.resize(self.holding, parser.unfinished_bytes, time.monotonic())

    def _ask(self, environ: dict) -> None:
        """Who a stranger is shows only inside Engine.IO; elsewhere a body without a credential is not worth its collecting."""
        self._has_asked, self._origin = True, environ.get("HTTP_ORIGIN")
        party, is_known = self.server.admit(environ)
        self.server.unfinished.identify(self.holding, party, is_known)
        if not is_known and not environ["PATH_INFO"].startswith(ENGINE_IO_PATH):
            self._parser.give_up_body()

    def _receive(self) -> bytes:
        self.is_idle = not self._parser.is_reading
        try:
            return self.socket.recv(RECV_BYTES)
        except OSError:
            if self.holding.is_dropped:
                raise too_many_unfinished() from None
            if not (self.is_idle and self.server.closed):
                raise
            return self._receive_at_once()  # what had arrived before the server closed is still answered
        finally:
            self.is_idle = False

    def _receive_at_once(self) -> bytes:
        self.socket.settimeout(0)
        try:
            return self.socket.recv(RECV_BYTES)
        except OSError:
            return b""
        finally:
            self.socket.settimeout(None)

    def _serve_websocket(self, environ: dict) -> None:
        """The application opens it, or gives an ordinary answer; what came after the head is no request in either case."""
        environ["switchyard.keep_alive"] = False
        websocket = offer_websocket(self, environ, self._parser.after_upgrade)
        if websocket is not None:
            self._respond(environ)
            websocket.close()
        self._linger()  # for a websocket, too: closing on unread frames would reset the connection and lose its last message

    def _respond(self, environ: dict) -> bool:
        """True when the connection may be used again."""
        response = Response(self, environ)
        on_answer, started, result = self.server.on_answer, time.monotonic(), None
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
            if on_answer is not None:
                on_answer(environ, response, time.monotonic() - started)
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
        self._send_error(status, answer)

    def _send_error(self, status: str, error: ApiError) -> None:
        self.deadline = time.monotonic() + self.server.read_timeout_s
        self.socket.sendall(self.server.render_error(status, error, self._origin))

    def _linger(self) -> None:
        """Let the client read the answer before the connection goes: closing on unread bytes would reset it."""
        self.deadline = time.monotonic() + 2
        self._end_tls()
        try:
            self.socket.settimeout(None)
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
        self.status = ""  # stays so where a websocket was opened
        self.sent = 0  # bytes of the body
        self.headers: list[tuple[str, str]] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info=None):
        if exc_info and self.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self.status, self.headers = status, headers
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
            self.sent += len(chunk)
            self._send(_chunk(chunk) if self._is_chunked else chunk)

    def _send_head(self, first: bytes, length: int | None) -> None:
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
        self.sent = len(first)
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
