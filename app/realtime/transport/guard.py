"""Keeps what is not Engine.IO from hurting anybody: the stock server raises on garbage, logs a traceback per packet, keeps
the session, and believes any length that a frame claims.

Here garbage closes the transport it came over, with one line in the log, and a frame may be as long as is allowed.
"""

import contextlib
import math
import socket
from base64 import b64decode
from collections import deque
from functools import partial
from io import BytesIO
from urllib.parse import parse_qs

import engineio
import gevent
from engineio.async_drivers.gevent import WebSocketWSGI
from engineio.payload import Payload
from geventwebsocket.exceptions import WebSocketError

from app.logs import get_logger
from app.realtime.transport import NAMESPACES
from app.realtime.transport.outbox import Outbox

log = get_logger(__name__)

PACKETS_PER_TURN = 8  # then everybody else has theirs, however fast one client sends
CLOSING_GRACE_S = 1.0  # how long a client may take to hang up after it was told
MAX_PACKETS_PER_POST = 10_000  # the library's own 16 are fewer than a stock client sends in one tick
PACKETS_OF_A_WEBSOCKET = frozenset("12345")  # close, ping, pong, message, upgrade; open and noop are the server's
SEPARATOR = "\x1e"
PACKETS_OF_A_POST = frozenset("134")


def close_transport(eio: engineio.Server, eio_sid: str | None) -> None:
    """End a session without the Engine.IO packet CLOSE, on which some clients do not reconnect by themselves."""
    session = eio.sockets.get(eio_sid)
    if session is not None:
        session.close(wait=False, abort=True, reason=eio.reason.SERVER_DISCONNECT)


def has_joined(server, eio_sid: str) -> bool:
    """Whether this Engine.IO session is in a namespace."""
    return any(server.manager.sid_from_eio_sid(eio_sid, namespace) for namespace in NAMESPACES)


class Guard:
    """`install` puts it around an engineio server; `wsgi` goes around the WSGI application that holds it."""

    def __init__(self, server, send_buffer_bytes: int, join_timeout_ms: int, path: str = "/socket.io/"):
        self._server = server
        self._eio: engineio.Server = server.eio
        self._send_buffer_bytes = send_buffer_bytes
        self._join_timeout_ms = join_timeout_ms
        self._path = path
        self._open: set[GuardedWebSocket] = set()
        self._unjoined: deque[tuple[int, str]] = deque()  # (deadline, session), the oldest first
        self._turns = 0

    def install(self, clock) -> None:
        Payload.max_decode_packets = MAX_PACKETS_PER_POST
        handlers = dict(self._eio.handlers)
        self._eio.on("connect", lambda eio_sid, environ: self._begin(handlers["connect"], eio_sid, environ, clock()))
        self._eio.on("message", lambda eio_sid, data: self._receive(handlers["message"], eio_sid, data))
        self._eio.on("disconnect", lambda eio_sid, reason: self._end(handlers["disconnect"], eio_sid, reason))
        self._eio._async = {**self._eio._async, "websocket": self._make_websocket, "queue": partial(Outbox, self._send_buffer_bytes)}

    def sweep(self, now: int) -> None:
        """Close the sessions that were opened and never joined a namespace: nobody knows who they are."""
        while self._unjoined and self._unjoined[0][0] <= now:
            _, eio_sid = self._unjoined.popleft()
            if eio_sid in self._eio.sockets and not has_joined(self._server, eio_sid):
                log.info("never_joined", transport_id=eio_sid)
                close_transport(self._eio, eio_sid)

    def wsgi(self, application):
        """Look at the body of every POST before the library does."""

        def guarded(environ, start_response):
            if environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO", "").startswith(self._path):
                try:
                    environ["wsgi.input"] = BytesIO(self._read_post(environ))
                except ValueError as error:
                    eio_sid = parse_qs(environ.get("QUERY_STRING", "")).get("sid", [None])[0]
                    self._refuse(eio_sid, error)
                    start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Connection", "close")])
                    return [b"Bad Request"]
            return application(environ, start_response)

        return guarded

    def close_all(self, patience_s: float) -> None:
        """Close every transport; whoever has not hung up after `patience_s` is cut off."""
        for eio_sid in list(self._eio.sockets):
            close_transport(self._eio, eio_sid)
        for _ in range(math.ceil(patience_s * 100)):
            if not self._open:
                return
            gevent.sleep(0.01)
        for websocket in list(self._open):
            websocket.cut()

    def _begin(self, handle, eio_sid: str, environ: dict, now: int):
        self._unjoined.append((now + self._join_timeout_ms, eio_sid))
        self._eio.sockets[eio_sid].queue.on_overflow = partial(gevent.spawn, close_transport, self._eio, eio_sid)
        return handle(eio_sid, environ)

    def _end(self, handle, eio_sid: str, reason) -> None:
        """Whatever ended it: a client that does not read must not keep its websocket, with what waits for it, for ever."""
        session = self._eio.sockets.get(eio_sid)
        handle(eio_sid, reason)
        if session is not None and session.queue.websocket is not None:
            gevent.spawn_later(CLOSING_GRACE_S, session.queue.websocket.cut)

    def _make_websocket(self, handler, _eio):
        return GuardedWebSocket(handler, self._eio.max_http_buffer_size, self._open)

    def _receive(self, handle, eio_sid: str, data) -> None:
        """Whatever python-socketio cannot read raises something; handlers of ours never do."""
        self._turns += 1
        if self._turns % PACKETS_PER_TURN == 0:
            gevent.sleep(0)
        try:
            handle(eio_sid, data)
        except Exception as error:
            self._refuse(eio_sid, error)

    def _read_post(self, environ) -> bytes:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length <= self._eio.max_http_buffer_size else b""
        if len(body) < length:
            raise ValueError("the body is longer than is read")
        packets = body.decode().split(SEPARATOR, MAX_PACKETS_PER_POST)
        if len(packets) > MAX_PACKETS_PER_POST:
            raise ValueError("too many packets")
        for packet in packets:
            if packet[:1] == "b":
                b64decode(packet[1:], validate=True)
            elif packet[:1] not in PACKETS_OF_A_POST:
                raise ValueError("this is not an Engine.IO packet")
        return body

    def _refuse(self, eio_sid: str | None, error: Exception) -> None:
        log.info("unreadable_packet", transport_id=eio_sid, error=f"{type(error).__name__}: {str(error)[:200]}")
        close_transport(self._eio, eio_sid)


class GuardedWebSocket(WebSocketWSGI):
    """One websocket. Reads at most `max_bytes` a message, gives others a turn, and hangs up where the client does not."""

    def __init__(self, handler, max_bytes: int, open_websockets: set):
        super().__init__(handler, None)
        self._session = handler.__self__
        self._outbox: Outbox = self._session.queue  # where engineio's writer takes its packets from
        self._max_bytes = max_bytes
        self._budget = max_bytes
        self._frames = 0
        self._all = open_websockets

    def __call__(self, environ, start_response):
        websocket = environ["wsgi.websocket"]
        self._outbox.websocket = self
        self._tcp = websocket.handler.socket
        self._read = websocket.raw_read
        websocket.raw_read = self._read_within_budget
        self._all.add(self)
        try:
            return super().__call__(environ, start_response)
        finally:
            self._all.discard(self)

    def wait(self):
        """The next message; None ends the connection, for the library as for us."""
        if self._session.closed:
            return None  # what it sent after that is nobody's
        self._frames += 1
        if self._frames % PACKETS_PER_TURN == 0:
            gevent.sleep(0)
        self._budget = self._max_bytes
        message = super().wait()
        if isinstance(message, str) and message[:1] not in PACKETS_OF_A_WEBSOCKET:
            log.info("unreadable_packet", error="this is not an Engine.IO packet")
            return None
        return message

    def send(self, message):
        super().send(message)
        self._outbox.note_written()

    def close(self):
        super().close()
        gevent.spawn_later(CLOSING_GRACE_S, self.cut)

    def cut(self):
        with contextlib.suppress(OSError):  # the client has hung up in the meantime
            self._tcp.shutdown(socket.SHUT_RDWR)

    def _read_within_budget(self, length: int) -> bytes:
        self._budget -= length
        if self._budget < 0:
            raise WebSocketError("the message is too large")
        return self._read(length)
