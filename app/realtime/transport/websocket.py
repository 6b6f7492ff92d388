"""One websocket of Engine.IO: counted while it is open, stopped at garbage, and cut where a client does not hang up."""

import contextlib
import re
import socket
from functools import partial

import gevent
from engineio.async_drivers.gevent import WebSocketWSGI

from app.http.request_id import REQUEST_ID
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.transport.dispatch import Dispatch
from app.realtime.transport.outbox import Outbox
from app.realtime.transport.posts import MESSAGE, PACKETS_OF_A_WEBSOCKET, is_packet
from app.realtime.transport.session import STATE, SessionState

log = SampledLog(get_logger(__name__))

CLOSING_GRACE_S = 1.0  # how long a client may take to hang up after it was told
PROBE_TIMEOUT_S = 10.0  # how long an upgrade may take for each of its two steps; until then the session polls
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, section 5.6.2
# To a session belongs one websocket, which ends with it; of a second nobody would know. In engineio's shape of an answer.
ONE_IS_OPEN = {
    "status": "400 BAD REQUEST",
    "headers": [("Content-Type", "text/plain")],
    "response": b'"This session has a websocket already."',
}


class GuardedWebSocket(WebSocketWSGI):
    """`handler` is engineio's, a method of the session; `open_websockets` has everyone that is open."""

    def __init__(self, handler, open_websockets: set, dispatch: Dispatch):
        super().__init__(handler, None)
        self._session = handler.__self__
        self._state: SessionState = self._session.session[STATE]
        self._outbox: Outbox = self._session.queue  # where engineio's writer takes its packets from
        self._all = open_websockets
        self._dispatch = dispatch
        self._has_probed = False
        self._user_id: str | None = None

    def __call__(self, environ, start_response):
        if self._outbox.websocket is not None:
            return ONE_IS_OPEN
        self._outbox.websocket = self
        self._tcp = environ["wsgi.websocket"].socket
        environ["wsgi.websocket"].admit_control = partial(self._dispatch.admit, self._session.sid, self._state)
        environ["wsgi.websocket"].open(("X-Request-Id", environ[REQUEST_ID]), *_protocol(environ))
        self._all.add(self)
        try:
            return super().__call__(environ, start_response)
        finally:
            self._all.discard(self)
            self._outbox.websocket = None

    def wait(self):
        """The next message; None ends the connection, for the library as for us."""
        while not self._session.closed:  # what it sent after that is nobody's
            self._note_who_it_is()
            message = self._wait_for_probe() if self._session.upgrading else super().wait()
            if not isinstance(message, str):
                return message
            if not is_packet(message, PACKETS_OF_A_WEBSOCKET):
                log.info("unreadable_packet", transport_id=self._session.sid, error="this is not an Engine.IO packet")
                return None
            if message[0] == MESSAGE or self._dispatch.admit(self._session.sid, self._state):
                return message
        return None

    def _note_who_it_is(self) -> None:
        self._sock.limit_messages(self._state.max_packet_bytes)
        if self._state.user_id != self._user_id:
            self._user_id = self._state.user_id
            self._sock.identify(f"user:{self._user_id}")

    def _wait_for_probe(self):
        """While `upgrading` is set engineio answers each poll at once and empty, and it would wait for the probe without a timeout.
        A websocket that hangs in a proxy must not stop the session from polling, so `upgrading` is set when the probe is there."""
        self._session.upgrading, self._has_probed = self._has_probed, True
        message = None
        with gevent.Timeout(PROBE_TIMEOUT_S, False):
            message = super().wait()
        self._session.upgrading = True
        return message

    def send(self, message):
        super().send(message)
        self._outbox.note_written()

    def close(self):
        gevent.spawn_later(CLOSING_GRACE_S, self.cut)  # first: a client that reads nothing may not even let the good-bye leave
        super().close()

    def cut(self):
        with contextlib.suppress(OSError):  # the client has hung up in the meantime
            self._tcp.shutdown(socket.SHUT_RDWR)


def _protocol(environ: dict) -> list[tuple[str, str]]:
    """Chooses the first subprotocol that the client offers; a browser fails the opening where none is chosen."""
    first = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")[0].strip()
    return [("Sec-WebSocket-Protocol", first)] if TOKEN.fullmatch(first) else []
