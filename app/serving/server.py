"""An HTTP/1.1 server on gevent's StreamServer: llhttp parses, the application answers, one greenlet a connection.

gevent's own pywsgi spends six times the CPU on a small request and sends headers and body apart, which costs a client
forty milliseconds an answer; that is why the few pages beside this one exist. Everything that can hang has a deadline,
kept by one greenlet for all connections.
"""

import contextlib
import logging
import resource
import socket
import sys
import time
from collections.abc import Callable
from uuid import uuid4

import gevent
import orjson
from gevent.server import StreamServer

from app.errors import ApiError, error_headers
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.serving.connection import Connection, Response, too_many_connections
from app.serving.connections_per_address import ConnectionsPerAddress
from app.serving.sender_check import SenderCheck
from app.serving.unfinished_bytes import UnfinishedBytes

log = logging.getLogger(__name__)
refusals = SampledLog(get_logger(__name__))
LOOK_EVERY_S = 1.0
MAX_CONNECTIONS = 10_000  # further ones wait in the system's backlog, and what that cannot hold is refused
MAX_SESSIONS = "switchyard.max_sessions"  # in every environ: how many connections websockets and polls may keep
HTTP_SHARE = 20  # one connection in so many is kept for requests that are answered at once
OWN_FILES = 200  # that the process needs beside its connections: the spool, MongoDB, Redis, metrics


def connections_allowed(wanted: int = MAX_CONNECTIONS) -> int:
    """So many connections as the process may open files, after asking for all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + OWN_FILES:
        soft = wanted + OWN_FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + OWN_FILES)
        with contextlib.suppress(OSError, ValueError):  # a system with a limit of its own, such as macOS
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - min(OWN_FILES, soft // 2)))


def server_options(parts, max_connections: int = MAX_CONNECTIONS) -> dict:
    """What both `flask run` and gunicorn give to Server; several servers of one process share what is bounded for the process."""
    from app.http.cors import headers_for  # with Flask, which gunicorn's master must not load

    settings = parts.settings
    return {
        "spawn": connections_allowed(max_connections),
        "max_body_bytes": settings.http_max_body_bytes,
        "read_timeout_s": settings.http_read_timeout_ms / 1000,
        "write_timeout_s": settings.http_read_timeout_ms / 1000,
        "keepalive_s": settings.http_idle_timeout_ms / 1000,
        "websocket_buffer_bytes": settings.rt_socket_buffer_bytes,
        "unfinished": UnfinishedBytes(settings.http_max_unfinished_bytes, settings.http_max_unknown_bytes),
        "shares": ConnectionsPerAddress(settings.http_connections_per_address),
        "trusted_proxies": settings.trusted_proxies,
        "admit": SenderCheck(parts.gatekeeper, settings.trusted_proxies),
        "cors": lambda origin: headers_for(settings, origin) or [],
        "on_refused": lambda reason: parts.metrics.http_turned_away_total.labels(reason).inc(),
    }


class Server(StreamServer):
    """`close()` stops accepting and lets idle connections go; `stop()` waits for the others, too.

    A request must arrive within `read_timeout_s`, an answer be taken within `write_timeout_s`, and a connection ask for
    something every `keepalive_s`; otherwise it is cut. `websocket_buffer_bytes` is what the system may hold back for a
    websocket: by itself it takes megabytes, and a client that reads nothing looks well for as long. 0 leaves it to the system.

    What requests and messages hold that have not come wholly is bounded by `unfinished`, and the connections of one address by
    `shares`. `admit` tells of a head whose it is; see admission.py. Outside Engine.IO a body
    of an unknown client is not collected: the application has to refuse it by its head. `on_answer` is called after each answer
    with the environ, the Response and the seconds it took. `cors` gives the headers that let a page of an origin read an error.
    """

    def __init__(
        self,
        listener,
        application,
        *,
        max_body_bytes: int,
        read_timeout_s: float = 30,
        write_timeout_s: float = 30,
        keepalive_s: float = 75,
        websocket_buffer_bytes: int = 0,
        unfinished: UnfinishedBytes | None = None,
        shares: ConnectionsPerAddress | None = None,
        trusted_proxies: int = 0,
        admit: Callable[[dict], tuple[str, bool]] = lambda environ: (environ["REMOTE_ADDR"], True),
        cors: Callable[[str | None], list[tuple[str, str]]] = lambda origin: [],
        on_refused: Callable[[str], None] = lambda reason: None,
        on_answer: Callable[[dict, Response, float], None] | None = None,
        base_environ: dict | None = None,
        **options,
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
        self.shares = shares or ConnectionsPerAddress(0)
        self.trusted_proxies = trusted_proxies
        self.admit = admit
        self._cors = cors
        self._on_refused = on_refused
        self.on_answer = on_answer
        self.base_environ = {**self._environ(), **(base_environ or {})}
        if self.pool is not None and self.pool.size:
            self.base_environ[MAX_SESSIONS] = self.pool.size - max(1, self.pool.size // HTTP_SHARE)

    def init_socket(self):
        super().init_socket()
        host, port = (self.socket.getsockname() + ("", ""))[:2] if self.socket.family != socket.AF_UNIX else ("localhost", "")
        self.base_environ |= {"SERVER_NAME": host, "SERVER_PORT": str(port)}
        gevent.spawn(self._keep_deadlines)

    def wrap_socket_and_handle(self, client_socket, address):
        """Only TLS itself is set up here; a client that never shakes hands is under the deadline that `handle` begins."""
        with self.wrap_socket(client_socket, do_handshake_on_connect=False, **self.ssl_args) as tls_socket:
            self.handle(tls_socket, address)

    def handle(self, sock, address):
        connection = Connection(sock, address, self)
        # A trusted proxy, or one at the other end of a unix socket, is not one client.
        client = None if self.trusted_proxies or not address else connection.address
        may_enter = self.shares.enter(client)
        self.connections.add(connection)
        try:
            if may_enter:
                connection.serve()
            else:
                self.count_refused("connections", client)
                connection.turn_away(too_many_connections())
        except OSError as gone:
            log.debug("connection lost: %s", gone)
        except Exception:
            self.log_exception(sys.exc_info())
        finally:
            self.connections.discard(connection)
            connection.end()
            if may_enter:
                self.shares.leave(client)

    def close(self):
        first = not self.closed
        super().close()
        if not first:
            return
        for connection in list(self.connections):
            if connection.is_idle:
                connection.wake()  # a request that has just arrived is still read, and answered

    def wait_until_closed(self) -> None:
        self._stop_event.wait()

    def count_refused(self, reason: str, address: str) -> None:
        self._on_refused(reason)
        refusals.warning("turned_away", reason=reason, address=address)

    def log_exception(self, exc_info) -> None:
        log.error("unexpected_error", exc_info=exc_info)

    def render_error(self, status: str, error: ApiError, origin: str | None = None) -> bytes:
        """A whole answer in the catalogue's shape, for a request that the application never saw."""
        body = orjson.dumps({"ok": False, "error": error.to_dict()})
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nX-Request-Id: {uuid4().hex}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in [*error_headers(error), *self._cors(origin)])
        return f"{head}{more}Connection: close\r\n\r\n".encode() + body

    def _keep_deadlines(self) -> None:
        while not self.closed or self.connections:
            gevent.sleep(LOOK_EVERY_S)
            self.cut_overdue(time.monotonic())

    def cut_overdue(self, now: float) -> None:
        """Where few connections are left, those that have been idle since the last look are cut, too."""
        patience = self.keepalive_s - LOOK_EVERY_S if self._is_crowded else 0
        for connection in list(self.connections):
            if connection.deadline is not None and connection.deadline < now + (patience if connection.is_idle else 0):
                _cut(connection)

    @property
    def _is_crowded(self) -> bool:
        return self.pool is not None and self.pool.free_count() < max(1, (self.pool.size or 0) // HTTP_SHARE // 2)

    def _environ(self) -> dict:
        return {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "switchyard",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self.ssl_enabled else "http",
            "wsgi.errors": _Errors(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }


def _cut(connection: Connection) -> None:
    """Wakes whoever waits on the socket: a read ends as if the client had gone, a write fails."""
    try:
        connection.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.deadline = None  # it went by itself in the meantime


class _Errors:
    """wsgi.errors: what a library writes there becomes log lines."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("wsgi_error", extra={"text": text.strip()})

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""
