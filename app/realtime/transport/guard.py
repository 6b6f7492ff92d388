"""Keeps what is not Engine.IO from hurting anybody: the stock server raises on garbage, logs a traceback per packet, keeps
the session, and believes any length that a frame claims.

Here garbage closes the transport it came over, with one line in the log, and a frame may be as long as is allowed.
"""

import math
from collections import deque
from functools import partial
from io import BytesIO
from urllib.parse import parse_qs

import engineio
import gevent
from engineio.payload import Payload

from app.logs import get_logger
from app.realtime.transport import NAMESPACES
from app.realtime.transport.outbox import Outbox
from app.realtime.transport.posts import MAX_PACKETS_PER_POST, read_post
from app.realtime.transport.websocket import CLOSING_GRACE_S, GuardedWebSocket
from app.serving.turns import Turn

log = get_logger(__name__)


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
        self._posting: dict[str | None, Turn] = {}  # by session: a post has many packets, and none of them waits for anything

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
                return self._post(application, environ, start_response)
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

    def _post(self, application, environ, start_response):
        eio_sid = parse_qs(environ.get("QUERY_STRING", "")).get("sid", [None])[0]
        try:
            environ["wsgi.input"] = BytesIO(read_post(environ, self._eio.max_http_buffer_size))
        except ValueError as error:
            self._refuse(eio_sid, error)
            start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Connection", "close")])
            return [b"Bad Request"]
        self._posting[eio_sid] = Turn()
        try:
            return application(environ, start_response)
        finally:
            self._posting.pop(eio_sid, None)

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
        return GuardedWebSocket(handler, self._open)

    def _receive(self, handle, eio_sid: str, data) -> None:
        """Whatever python-socketio cannot read raises something; handlers of ours never do."""
        if turn := self._posting.get(eio_sid):
            turn.check()
        if (session := self._eio.sockets.get(eio_sid)) is None or session.closed:
            return  # it was closed for what came before
        try:
            handle(eio_sid, data)
        except Exception as error:
            self._refuse(eio_sid, error)

    def _refuse(self, eio_sid: str | None, error: Exception) -> None:
        log.info("unreadable_packet", transport_id=eio_sid, error=f"{type(error).__name__}: {str(error)[:200]}")
        close_transport(self._eio, eio_sid)
