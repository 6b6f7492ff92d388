"""One websocket of Engine.IO: counted while it is open, stopped at garbage, and cut where a client does not hang up."""

import contextlib
import socket

import gevent
from engineio.async_drivers.gevent import WebSocketWSGI

from app.http.request_id import REQUEST_ID
from app.logs import get_logger
from app.realtime.transport.outbox import Outbox

log = get_logger(__name__)

CLOSING_GRACE_S = 1.0  # how long a client may take to hang up after it was told
PACKETS_OF_A_WEBSOCKET = frozenset("12345")  # close, ping, pong, message, upgrade; open and noop are the server's
# To a session belongs one websocket, which ends with it; of a second nobody would know. In engineio's shape of an answer.
ONE_IS_OPEN = {
    "status": "400 BAD REQUEST",
    "headers": [("Content-Type", "text/plain")],
    "response": b'"This session has a websocket already."',
}


class GuardedWebSocket(WebSocketWSGI):
    """`handler` is engineio's, a method of the session; `open_websockets` has everyone that is open."""

    def __init__(self, handler, open_websockets: set):
        super().__init__(handler, None)
        self._session = handler.__self__
        self._outbox: Outbox = self._session.queue  # where engineio's writer takes its packets from
        self._all = open_websockets

    def __call__(self, environ, start_response):
        if self._outbox.websocket is not None:
            return ONE_IS_OPEN
        self._outbox.websocket = self
        self._tcp = environ["wsgi.websocket"].socket
        environ["wsgi.websocket"].open(("X-Request-Id", environ[REQUEST_ID]))
        self._all.add(self)
        try:
            return super().__call__(environ, start_response)
        finally:
            self._all.discard(self)
            self._outbox.websocket = None

    def wait(self):
        """The next message; None ends the connection, for the library as for us."""
        if self._session.closed:
            return None  # what it sent after that is nobody's
        message = super().wait()
        if isinstance(message, str) and message[:1] not in PACKETS_OF_A_WEBSOCKET:
            log.info("unreadable_packet", error="this is not an Engine.IO packet")
            return None
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
