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
from engineio.packet import Packet

from app.clock import Clock, uptime
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.allowance import Allowance
from app.realtime.options import Options
from app.realtime.transport import NAMESPACES
from app.realtime.transport.compression import gzip_in_turns
from app.realtime.transport.dispatch import Dispatch
from app.realtime.transport.outbox import Outbox
from app.realtime.transport.posts import PACKETS_OF_A_POST, read_post
from app.realtime.transport.session import STATE, SessionState, close_transport, state_of
from app.realtime.transport.websocket import CLOSING_GRACE_S, GuardedWebSocket
from app.serving.fairness import TimeSlice, yield_before_large, yield_if_slice_is_over

log = SampledLog(get_logger(__name__))


def has_joined(server, eio_sid: str) -> bool:
    """Whether this Engine.IO session is in a namespace."""
    return any(server.manager.sid_from_eio_sid(eio_sid, namespace) for namespace in NAMESPACES)


class EngineIoGuard:
    """`install` puts it around an engineio server; `wsgi` goes around the WSGI application that holds it. `max_connect_bytes` is
    how long a packet may be before its session has joined a namespace."""

    def __init__(
        self, server, options: Options, clock: Clock, *, send_buffer_bytes: int, max_connect_bytes: int, path: str = "/socket.io/"
    ):
        self._server = server
        self._eio: engineio.Server = server.eio
        self._options = options
        self._clock = clock
        self._send_buffer_bytes = send_buffer_bytes
        self._max_connect_bytes = min(max_connect_bytes, self._eio.max_http_buffer_size)
        self._path = path
        self._dispatch = Dispatch(server, clock, self._eio.max_http_buffer_size)
        self._open: set[GuardedWebSocket] = set()
        self._unjoined: deque[tuple[int, str]] = deque()  # (when it was opened, session), the oldest first

    def install(self) -> None:
        handlers = dict(self._eio.handlers)
        self._eio.on("connect", partial(self._begin, handlers["connect"]))
        self._eio.on("message", self._receive)
        self._eio.on("disconnect", lambda eio_sid, reason: self._end(handlers["disconnect"], eio_sid, reason))
        self._eio.compression_methods, self._eio._gzip = ["gzip"], gzip_in_turns
        self._eio._async = {**self._eio._async, "websocket": self._make_websocket, "queue": partial(Outbox, self._send_buffer_bytes)}

    def sweep(self, join_timeout_ms: int) -> None:
        """Close sessions that are older than that and have joined no namespace: they are anonymous."""
        while self._unjoined and self._unjoined[0][0] <= uptime() - join_timeout_ms:
            _, eio_sid = self._unjoined.popleft()
            if eio_sid in self._eio.sockets and not has_joined(self._server, eio_sid):
                log.info("never_joined", transport_id=eio_sid)
                close_transport(self._eio, eio_sid, "never_joined")

    def wsgi(self, application):
        """Handles every POST, and the last poll of a session that was closed; engineio handles the rest."""

        def guarded(environ, start_response):
            if not environ.get("PATH_INFO", "").startswith(self._path):
                return application(environ, start_response)
            if environ["REQUEST_METHOD"] == "POST":
                return self._post(application, environ, start_response)
            return self._last_words(environ, start_response) or application(environ, start_response)

        return guarded

    def close_all(self, patience_s: float) -> None:
        """Close every transport; whoever has not hung up after `patience_s` is cut off."""
        for eio_sid in list(self._eio.sockets):
            close_transport(self._eio, eio_sid, "drain")
        for _ in range(math.ceil(patience_s * 100)):
            if not self._open:
                return
            gevent.sleep(0.01)
        for websocket in list(self._open):
            websocket.cut()

    def _post(self, application, environ, start_response):
        """engineio gets the request with an empty body, to check its session and its origin and to make the answer. The packets are
        then received one by one, in turns, since engineio would decode thousands in one piece."""
        body = {name: environ[name] for name in ("wsgi.input", "CONTENT_LENGTH") if name in environ}
        environ |= {"wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}
        eio_sid = _sid(environ)
        session = self._eio.sockets.get(eio_sid)
        if session is not None and session.closed:
            return self._refuse_post(environ, start_response)  # engineio would raise
        answer = []
        result = application(environ, lambda *start: answer.append(start))
        if answer[0][0][:3] == "200":
            try:
                self._receive_all(session, read_post(body, state_of(self._eio, eio_sid).max_packet_bytes))
            except Exception as error:
                self._refuse(eio_sid, error)
                return self._refuse_post(environ, start_response)
        start_response(*answer[0])
        return result

    def _refuse_post(self, environ, start_response):
        start_response("400 Bad Request", [("Connection", "close"), *self._eio._cors_headers(environ)])
        return [b"Bad Request"]

    def _last_words(self, environ, start_response):
        """The answer to the first poll after the server closed the session: what was queued, such as the reason. None where nothing
        is queued."""
        session = self._eio.sockets.get(_sid(environ))
        if session is None or not session.closed or session.upgraded or not (packets := session.queue.drain()):
            return None
        answer = self._eio._ok(packets)
        start_response(answer["status"], [*answer["headers"], *self._eio._cors_headers(environ)])
        return [answer["response"]]

    def _receive_all(self, session, packets: list[str]) -> None:
        time_slice, state = TimeSlice(), session.session[STATE]
        for text in packets:
            time_slice.yield_if_over()
            yield_before_large(len(text))
            yield_if_slice_is_over(len(text))
            if session.closed:
                return  # because of an earlier packet
            if text[0] not in PACKETS_OF_A_POST or self._dispatch.admit(session.sid, state):
                session.receive(Packet(encoded_packet=text))

    def _begin(self, handle, eio_sid: str, environ: dict):
        self._unjoined.append((uptime(), eio_sid))
        session = self._eio.sockets[eio_sid]
        session.session[STATE] = SessionState(Allowance(self._options, self._clock()), self._max_connect_bytes)
        session.queue.on_overflow = partial(gevent.spawn, close_transport, self._eio, eio_sid, "slow_consumer")
        return handle(eio_sid, environ)

    def _end(self, handle, eio_sid: str, reason) -> None:
        """Whatever ended it: a client that does not read must not keep its websocket, with what waits for it, for ever."""
        session = self._eio.sockets.get(eio_sid)
        handle(eio_sid, reason)
        if session is not None and session.queue.websocket is not None:
            gevent.spawn_later(CLOSING_GRACE_S, session.queue.websocket.cut)

    def _make_websocket(self, handler, _eio):
        return GuardedWebSocket(handler, self._open, self._dispatch)

    def _receive(self, eio_sid: str, data) -> None:
        """A packet that cannot be read raises; the handlers of the namespaces never do."""
        if (session := self._eio.sockets.get(eio_sid)) is None or session.closed:
            return  # it was closed for what came before
        try:
            self._dispatch.receive(eio_sid, data)
        except Exception as error:
            self._refuse(eio_sid, error)

    def _refuse(self, eio_sid: str, error: Exception) -> None:
        log.info("unreadable_packet", transport_id=eio_sid, error=f"{type(error).__name__}: {str(error)[:200]}")
        close_transport(self._eio, eio_sid, "unreadable_packet")


def _sid(environ: dict) -> str:
    return parse_qs(environ.get("QUERY_STRING", "")).get("sid", [""])[0]
