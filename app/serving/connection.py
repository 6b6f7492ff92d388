"""Serves one connection: calls the application for each request, and closes so that the client can read the last answer."""

import sys
import time
from contextlib import suppress
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY
from typing import TYPE_CHECKING, Any

from gevent.socket import cancel_wait

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of
from app.serving.rejections import Rejection, too_many_connections
from app.serving.request_parser import RequestParser
from app.serving.request_reader import RECV_BYTES, RequestReader
from app.serving.response import Response
from app.serving.unfinished_bytes import ConnectionBytes
from app.serving.websocket import has_opened, is_websocket, offer_websocket

if TYPE_CHECKING:
    from app.serving.server import Server

LINGER_BYTES = 4_194_304
LINGER_S = 2  # how long the client may take to read the last answer and to close
REJECTED_READ_S = 0.2  # how long a rejected connection waits for the request that it answers


class Connection:
    """A client's socket, the request that it is sending, and the limits that apply to it.

    The server closes the connection at `deadline` (in seconds of time.monotonic(), None while the application works). `is_idle` is True
    while the connection waits for the first byte of a request. `origin` is the Origin header of the last request, where it was read.
    """

    def __init__(self, sock: Any, address: Any, server: "Server"):
        self.socket = sock
        self.server = server
        self.deadline: float | None = None
        self.is_idle = False
        self.origin: str | None = None
        environ = {**server.base_environ, "REMOTE_ADDR": address[0] if address else "", "REMOTE_PORT": str(address[1]) if address else ""}
        environ["gunicorn.socket"] = sock
        self.address = network_of(environ["REMOTE_ADDR"])
        self.unfinished = ConnectionBytes(self.address, self.drop)
        self._parser = RequestParser(environ, server.max_body_bytes)

    def serve(self) -> None:
        """Answer requests until the client or the server closes the connection."""
        if self.socket.family.name != "AF_UNIX":
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._begin_tls()
        requests = RequestReader(self, self._parser)  # not an attribute: the cycle would keep both until a garbage collection
        try:
            while (environ := requests.next()) is not None:
                if not self._serve_within_limit(environ):
                    return
                requests.yield_between_requests()
        except Rejection as rejection:
            self._send_error(rejection.status, rejection.error)
            self._linger()

    def reject(self, rejection: Rejection) -> None:
        """Answer the first request with the rejection. Called instead of `serve`.

        Reads the request before it answers, because a close with unread bytes would reset the connection and lose the answer."""
        self.socket.settimeout(REJECTED_READ_S)
        self._begin_tls()
        with suppress(TimeoutError):
            self.socket.recv(RECV_BYTES)
        self._send_error(rejection.status, rejection.error)

    def wake(self) -> None:
        """Interrupt a read that waits for this client. Unlike a shutdown, this keeps TLS intact and the received bytes readable."""
        cancel_wait(self.socket._read_event)  # gevent's own shutdown calls this first

    def drop(self) -> None:
        """Free the bytes of the unfinished request, because other clients need the memory. The connection answers 503 and closes."""
        self.server.count_rejected("unfinished", self.unfinished.party)
        self._parser.discard()
        self.wake()

    def end(self) -> None:
        """Release everything that the connection holds. The caller closes the socket."""
        self._end_tls()
        self.release()
        self._parser.discard()
        self.unfinished.drop = None

    def release(self) -> None:
        """Stop counting the bytes of the answered request."""
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
        """Send close_notify, so that the client knows that nothing is missing, and do not wait for the client's own."""
        if self.server.ssl_enabled:
            with suppress(OSError, ValueError):
                self.socket.settimeout(0)
                self.socket.unwrap()

    def _serve_within_limit(self, environ: dict) -> bool:
        """Return whether the connection may be used again. Behind a trusted proxy the limit of an address applies to each request."""
        server = self.server
        if not server.trusted_proxies:
            return self._serve(environ)
        self.origin = environ.get("HTTP_ORIGIN")
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
        already_read = self._parser.after_upgrade
        if already_read is not None and is_websocket(environ):
            self._serve_websocket(environ, already_read)
            return False
        if self._respond(environ):
            return True
        self._linger()
        return False

    def _serve_websocket(self, environ: dict, already_read: bytes) -> None:
        """Let the application open the websocket or answer. In both cases the bytes behind the head are not another request."""
        environ["switchyard.keep_alive"] = False
        websocket = offer_websocket(self, environ, already_read)
        if websocket is not None:
            self._respond(environ)
            websocket.close()
        self._linger()

    def _respond(self, environ: dict) -> bool:
        """Call the application and send its answer. Return whether the connection may be used again."""
        response = Response(self, environ)
        on_answer, started = self.server.on_answer, time.monotonic()
        result: Any = None
        try:
            result = self.server.application(environ, response.start)
            if not has_opened(environ):
                response.send(result)
        except OSError:
            return False  # the client has disconnected
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
        self.socket.sendall(self.server.render_error(status, error, self.origin))

    def _linger(self) -> None:
        """Wait until the client has closed, because a close with unread bytes would reset the connection and lose the last answer."""
        self.deadline = time.monotonic() + LINGER_S
        self._end_tls()
        try:
            self.socket.settimeout(None)
            self.socket.shutdown(SHUT_WR)
            total = 0
            while total < LINGER_BYTES and (data := self.socket.recv(RECV_BYTES)):
                total += len(data)
        except OSError:
            return  # the client has closed the connection
