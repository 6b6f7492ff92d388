"""One connection: reads requests, calls the application, sends answers, and closes so that the client can read the last one."""

import sys
import time
from contextlib import suppress
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY
from typing import TYPE_CHECKING, Any

from gevent.socket import cancel_wait

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of
from app.serving.fairness import TimeSlice, yield_if_slice_is_over
from app.serving.rejections import Rejection, too_many_connections, too_many_unfinished
from app.serving.request_parser import RequestParser
from app.serving.response import Response
from app.serving.sender_check import is_small
from app.serving.unfinished_bytes import ConnectionBytes
from app.serving.websocket import ENGINE_IO_PATH, has_opened, is_websocket, offer_websocket

if TYPE_CHECKING:
    from app.serving.server import Server

RECV_BYTES = 65_536
LINGER_BYTES = 4_194_304
LINGER_S = 2
REJECTED_READ_S = 0.2  # how long the request of a rejected connection is awaited


class Connection:
    """The server enforces `deadline` (monotonic seconds, None while the application works).

    `is_idle` is True between two requests, while nothing of the next one has been read.
    """

    def __init__(self, sock: Any, address: Any, server: "Server"):
        self.socket = sock
        self.server = server
        self.deadline: float | None = None
        self.is_idle = False
        self._request_deadline: float | None = None  # set by the first byte of a request: later bytes do not extend it
        environ = {**server.base_environ, "REMOTE_ADDR": address[0] if address else "", "REMOTE_PORT": str(address[1]) if address else ""}
        environ["gunicorn.socket"] = sock
        self.address = network_of(environ["REMOTE_ADDR"])
        self.unfinished = ConnectionBytes(self.address, self.drop)
        self._is_sender_checked = False
        self._origin: str | None = None  # of the page that sent the last request, where it is known
        self._parser = RequestParser(environ, server.max_body_bytes)
        self._time_slice = TimeSlice.of_cpu_time()

    def serve(self) -> None:
        """Answer requests until the client or the server closes the connection."""
        if self.socket.family.name != "AF_UNIX":
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._begin_tls()
        try:
            while (environ := self._next_request()) is not None:
                if not self._serve_within_limit(environ):
                    return
                if self._parser.ready:
                    self._time_slice.yield_if_over()
        except Rejection as rejection:
            self._send_error(rejection.status, rejection.error)
            self._linger()

    def reject(self, rejection: Rejection) -> None:
        """Answer with the rejection instead of `serve`. Reads the request first, so that the close does not reset the answer."""
        self.socket.settimeout(REJECTED_READ_S)
        self._begin_tls()
        with suppress(TimeoutError):
            self.socket.recv(RECV_BYTES)
        self._send_error(rejection.status, rejection.error)

    def wake(self) -> None:
        """End a wait for this client's bytes. Unlike a shutdown, this leaves readable what has arrived, and TLS intact."""
        cancel_wait(self.socket._read_event)  # gevent's own shutdown begins with it

    def drop(self) -> None:
        """Free what is unfinished, because others need the memory. The connection closes after it has answered so."""
        self.server.count_rejected("unfinished", self.unfinished.party)
        self._parser.discard()
        self.wake()

    def end(self) -> None:
        """Release all that the connection holds."""
        self._end_tls()
        self.release()
        self._parser.discard()
        self.unfinished.drop = None

    def release(self) -> None:
        """Release what the answered request held."""
        limit = self.server.unfinished
        limit.resize(self.unfinished, 0, 0)
        if self.unfinished.is_known:
            limit.identify(self.unfinished, self.address, False)
        self.unfinished.is_in_work = False

    def _begin_tls(self) -> None:
        if self.server.ssl_enabled:
            self.deadline = time.monotonic() + self.server.read_timeout_s
            self.socket.do_handshake()

    def _end_tls(self) -> None:
        """Send close_notify, which tells the client that nothing was cut off, and do not wait for the client's own."""
        if self.server.ssl_enabled:
            with suppress(OSError, ValueError):
                self.socket.settimeout(0)
                self.socket.unwrap()

    def _serve_within_limit(self, environ: dict) -> bool:
        """Return True when the connection may be used again. Behind a trusted proxy the client's limit applies to each request."""
        server = self.server
        if not server.trusted_proxies:
            return self._serve(environ)
        self._origin = environ.get("HTTP_ORIGIN")
        client = forwarded_for(environ, server.trusted_proxies)
        client = None if client is None else network_of(client)
        if not server.per_address.acquire(client):
            server.count_rejected("connections", client)
            raise too_many_connections()
        try:
            return self._serve(environ)
        finally:
            server.per_address.release(client)

    def _serve(self, environ: dict) -> bool:
        if self._parser.after_upgrade is not None and is_websocket(environ):
            self._serve_websocket(environ)
            return False
        if self._respond(environ):
            return True
        self._linger()
        return False

    def _next_request(self) -> dict | None:
        """Return the next request, or None when the client has gone or the server closes."""
        parser = self._parser
        idle_deadline = time.monotonic() + self.server.keepalive_s  # empty lines between two requests do not extend it
        if self.unfinished.bytes and not parser.is_reading:
            self.release()
        while not parser.ready:
            if self.server.closed and not parser.is_reading:
                return None
            if parser.error is not None:
                raise parser.error
            self._raise_if_dropped()
            self.deadline = self._request_deadline or idle_deadline
            started = time.monotonic()
            data = self._receive()
            self._time_slice.restart_if_waited(started)
            self._time_slice.yield_if_over()
            if not data:
                return None
            yield_if_slice_is_over(len(data))
            self._raise_if_dropped()  # another greenlet may have dropped it meanwhile
            parser.feed(data)
            if parser.is_reading:
                self._hold()
            if parser.wants_continue:
                parser.wants_continue = False
                self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline = self._request_deadline = None
        self._is_sender_checked = False
        self.unfinished.is_in_work = not parser.is_reading
        return parser.ready.popleft()

    def _raise_if_dropped(self) -> None:
        if self.unfinished.is_dropped:
            raise too_many_unfinished()

    def _hold(self) -> None:
        """Count the bytes of a request that is not complete yet, and check its sender once its head is complete."""
        parser = self._parser
        if self._request_deadline is None:
            self._request_deadline = time.monotonic() + self.server.read_timeout_s
        if (environ := parser.unfinished) is not None and not self._is_sender_checked and not is_small(environ):
            self._check_sender(environ)
        self.server.unfinished.resize(self.unfinished, parser.unfinished_bytes, time.monotonic())

    def _check_sender(self, environ: dict) -> None:
        """Do not read the body of an unknown sender. Engine.IO is the exception: its clients identify themselves in the body."""
        self._is_sender_checked, self._origin = True, environ.get("HTTP_ORIGIN")
        party, is_known = self.server.check_sender(environ)
        self.server.unfinished.identify(self.unfinished, party, is_known)
        if not is_known and not environ["PATH_INFO"].startswith(ENGINE_IO_PATH):
            self._parser.give_up_body()

    def _receive(self) -> bytes:
        self.is_idle = not self._parser.is_reading
        try:
            return self.socket.recv(RECV_BYTES)
        except OSError:
            if self.unfinished.is_dropped:
                raise too_many_unfinished() from None
            if not (self.is_idle and self.server.closed):
                raise
            return self._receive_at_once()  # a request that arrived before the server closed still gets its answer
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
        """Let the application open the websocket or answer. In both cases the bytes behind the head are no further request."""
        environ["switchyard.keep_alive"] = False
        websocket = offer_websocket(self, environ, self._parser.after_upgrade)
        if websocket is not None:
            self._respond(environ)
            websocket.close()
        self._linger()

    def _respond(self, environ: dict) -> bool:
        """Return True when the connection may be used again."""
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
            if not response.head_sent and not has_opened(environ):
                self._send_error("500 Internal Server Error", ApiError("internal"))
            return False
        finally:
            if hasattr(result, "close"):
                result.close()
            if on_answer is not None:
                on_answer(environ, response, time.monotonic() - started)
        return response.keep_alive

    def _send_error(self, status: str, error: ApiError) -> None:
        self.deadline = time.monotonic() + self.server.read_timeout_s
        self.socket.sendall(self.server.render_error(status, error, self._origin))

    def _linger(self) -> None:
        """Let the client read the last answer or message: a close on unread bytes would reset the connection and lose it."""
        self.deadline = time.monotonic() + LINGER_S
        self._end_tls()
        try:
            self.socket.settimeout(None)
            self.socket.shutdown(SHUT_WR)
            total = 0
            while total < LINGER_BYTES and (data := self.socket.recv(RECV_BYTES)):
                total += len(data)
        except OSError:
            return  # the client has closed, so it has read what it wanted
