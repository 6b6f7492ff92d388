"""An HTTP/1.1 server on gevent's StreamServer: llhttp parses requests, the application answers, one greenlet serves a connection.

gevent's own pywsgi needs six times the CPU for a small request, and sends head and body separately, which delays each answer by forty
milliseconds; see docs/decisions/own-http-server.md. Every wait for a client has a deadline, and one greenlet enforces the deadlines of
all connections.
"""

import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import gevent
import orjson
from gevent.server import StreamServer

from app.errors import ApiError, error_headers
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.serving.base_environ import base_environ as shared_environ
from app.serving.connection import Connection
from app.serving.connections_per_address import ConnectionsPerAddress
from app.serving.rejections import too_many_connections
from app.serving.response import Response
from app.serving.unfinished_bytes import UnfinishedBytes

log = logging.getLogger(__name__)
sampled_log = SampledLog(get_logger(__name__))
DEADLINE_CHECK_S = 1.0  # the interval between two looks at all deadlines
MAX_SESSIONS = "switchyard.max_sessions"  # in every environ: how many connections websockets and long polls may occupy together
HTTP_SHARE = 20  # one of this many connections is reserved for short requests


class Server(StreamServer):
    """`close()` stops accepting and closes idle connections; `stop()` also waits for the others.

    The server closes a connection when a request takes longer than `read_timeout_s` to arrive, when an answer takes longer than
    `write_timeout_s` to send, and when no request arrives for `keepalive_s`. `websocket_buffer_bytes` is the size of the kernel's send
    buffer for a websocket; 0 keeps the kernel's default. That is megabytes, which would hide for a long time that a client reads nothing.

    `unfinished` limits the memory of unfinished requests and messages, and `per_address` the connections of one address. `check_sender`
    identifies the sender of a request from its head; see sender_check.py. `on_rejected` is called with the reason of each rejection.
    `on_answer` is called after each answer with the environ, the Response and the duration in seconds. `cors` returns the headers that
    let a page of the given origin read an error.
    """

    def __init__(
        self,
        listener: Any,
        application: Callable,
        *,
        max_body_bytes: int,
        read_timeout_s: float = 30,
        write_timeout_s: float = 30,
        keepalive_s: float = 75,
        websocket_buffer_bytes: int = 0,
        unfinished: UnfinishedBytes | None = None,
        per_address: ConnectionsPerAddress | None = None,
        trusted_proxies: int = 0,
        check_sender: Callable[[dict], tuple[str, bool]] = lambda environ: (environ["REMOTE_ADDR"], True),
        cors: Callable[[str | None], list[tuple[str, str]]] = lambda origin: [],
        on_rejected: Callable[[str], None] = lambda reason: None,
        on_answer: Callable[[dict, Response, float], None] | None = None,
        base_environ: dict | None = None,
        **options: Any,
    ):
        self.connections: set[Connection] = set()
        super().__init__(listener, **options)
        self.application = application
        self.max_body_bytes = max_body_bytes
        self.read_timeout_s = read_timeout_s
        self.write_timeout_s = write_timeout_s
        self.keepalive_s = keepalive_s
        self.websocket_buffer_bytes = websocket_buffer_bytes
        self.unfinished = unfinished or UnfinishedBytes(sys.maxsize, sys.maxsize)
        self.per_address = per_address or ConnectionsPerAddress(0)
        self.trusted_proxies = trusted_proxies
        self.check_sender = check_sender
        self._cors = cors
        self._on_rejected = on_rejected
        self.on_answer = on_answer
        self.base_environ = {**shared_environ(is_tls=self.ssl_enabled), **(base_environ or {})}
        if self.pool is not None and self.pool.size:
            self.base_environ[MAX_SESSIONS] = self.pool.size - max(1, self.pool.size // HTTP_SHARE)

    def init_socket(self) -> None:
        """Listen, and start to enforce deadlines. gevent calls this once, at the start."""
        super().init_socket()
        host, port = (self.socket.getsockname() + ("", ""))[:2] if self.socket.family != socket.AF_UNIX else ("localhost", "")
        self.base_environ |= {"SERVER_NAME": host, "SERVER_PORT": str(port)}
        gevent.spawn(self._enforce_deadlines)

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Set up TLS without its handshake. `Connection.serve` makes the handshake under a deadline."""
        with self.wrap_socket(client_socket, do_handshake_on_connect=False, **self.ssl_args) as tls_socket:
            self.handle(tls_socket, address)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection. gevent calls this in a greenlet of its own."""
        connection = Connection(sock, address, self)
        # A trusted proxy, or a proxy at the other end of a unix socket, is not one client.
        client = None if self.trusted_proxies or not address else connection.address
        is_within_limit = self.per_address.acquire(client)
        self.connections.add(connection)
        try:
            if is_within_limit:
                connection.serve()
            else:
                self.count_rejected("connections", client)
                connection.reject(too_many_connections())
        except OSError as error:
            log.debug("connection lost: %s", error)
        except Exception:
            self.log_exception(sys.exc_info())
        finally:
            self.connections.discard(connection)
            connection.end()
            if is_within_limit:
                self.per_address.release(client)

    def close(self) -> None:
        """Stop accepting, and close idle connections. A request that has just arrived is still read and answered."""
        first = not self.closed
        super().close()
        if not first:
            return
        for connection in list(self.connections):
            if connection.is_idle:
                connection.wake()

    def wait_until_closed(self) -> None:
        """Wait until any greenlet has called `close`."""
        self._stop_event.wait()

    def count_rejected(self, reason: str, address: str | None) -> None:
        """Count and log a rejection."""
        self._on_rejected(reason)
        sampled_log.warning("connection_rejected", reason=reason, address=address)

    def log_exception(self, exc_info: Any) -> None:
        """Log an exception that the application did not catch."""
        log.error("unexpected_error", exc_info=exc_info)

    def render_error(self, status: str, error: ApiError, origin: str | None = None) -> bytes:
        """Return a complete answer with the API's error object, for a request that does not reach the application."""
        body = orjson.dumps({"ok": False, "error": error.to_dict()})
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nX-Request-Id: {uuid4().hex}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in [*error_headers(error), *self._cors(origin)])
        return f"{head}{more}Connection: close\r\n\r\n".encode() + body

    def _enforce_deadlines(self) -> None:
        while not self.closed or self.connections:
            gevent.sleep(DEADLINE_CHECK_S)
            self.close_overdue(time.monotonic())

    def close_overdue(self, now: float) -> None:
        """Close the connections whose deadline is over.

        Where few connections are free, also close those that have been idle for DEADLINE_CHECK_S."""
        earlier_s = self.keepalive_s - DEADLINE_CHECK_S if self._is_crowded else 0
        for connection in list(self.connections):
            if connection.deadline is not None and connection.deadline < now + (earlier_s if connection.is_idle else 0):
                _shut_down(connection)

    @property
    def _is_crowded(self) -> bool:
        return self.pool is not None and self.pool.free_count() < max(1, (self.pool.size or 0) // HTTP_SHARE // 2)


def _shut_down(connection: Connection) -> None:
    """End all waits on the socket: a read ends as if the client had disconnected, and a write fails."""
    try:
        connection.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.deadline = None  # the client has closed the connection already
