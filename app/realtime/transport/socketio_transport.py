"""Frames by the stock emit: one encoding per frame, a queue and a greenlet per connection."""

from functools import partial

import gevent
from flask_socketio import SocketIO
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from socketio import RedisManager

from app.errors import ApiError
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.transport import NAMESPACES, REALTIME, Link, Listener, NoLink
from app.realtime.transport.outbox import Outbox
from app.realtime.transport.safe_link import SafeLink
from app.realtime.transport.session import close_transport

log = SampledLog(get_logger(__name__))

REDIS_ANSWERS_S = 1.0  # that much at most does an emit wait for a Redis that is silent


class RoomQueue(RedisManager):
    """What Flask-SocketIO takes for `message_queue`, so that any process with Redis can emit to rooms; only that a message
    which did not leave is not called sent. Clients of this very process may have got it by then.

    Publishing has a connection of its own, since a Redis that hangs must be noticed here, while the subscription waits for
    ever on purpose. A connection that was closed meanwhile is opened again, once; nobody waits a second time for a silent one.
    """

    def __init__(self, url: str):
        super().__init__(url, channel="flask-socketio")
        once_more = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        self._publisher = Redis.from_url(url, socket_timeout=REDIS_ANSWERS_S, socket_connect_timeout=REDIS_ANSWERS_S, retry=once_more)

    def _publish(self, data):
        try:
            self._publisher.publish(self.channel, self.json.dumps(data))
        except RedisError as error:
            log.warning("rooms_unavailable", error=f"{type(error).__name__}: {str(error)[:200]}")
            message = "Redis does not answer; other processes did not get the event."
            raise ApiError("unavailable", message, retry_after_ms=1000) from None


class SocketIOTransport:
    """Flask-SocketIO behind the port of the hub."""

    _listener: Listener

    def __init__(self, socketio: SocketIO, send_buffer_bytes: int):
        self._socketio = socketio
        self._send_buffer_bytes = send_buffer_bytes
        self._outboxes: dict[str, Outbox] = {}

    def listen(self, listener):
        self._listener = listener

    def opened(self, connection_id: str) -> None:
        """From now on its outbox is known by the connection's id."""
        server = self._socketio.server
        session = server.eio.sockets.get(server.manager.eio_sid_from_sid(connection_id, REALTIME))
        if session is not None:
            self._outboxes[connection_id] = session.queue
            session.queue.on_overflow = partial(gevent.spawn, self._overflowed, connection_id)

    def _overflowed(self, connection_id: str) -> None:
        """Not from inside the send that was one too many, so that nothing is closed while it is sent to."""
        if outbox := self._outboxes.get(connection_id):
            outbox.reopen()
            self._listener.overflowed(connection_id)

    def closed(self, connection_id: str) -> None:
        self._outboxes.pop(connection_id, None)

    def link(self, connection_id) -> Link:
        outbox = self._outboxes.get(connection_id)
        if outbox is None:
            return NoLink()
        listener = self._listener
        blocked, writable = partial(listener.blocked, connection_id), partial(listener.writable, connection_id)
        return SafeLink(outbox, self._send_buffer_bytes, blocked, writable)

    def send(self, connection_id, frame):
        """`ignore_queue`: the connection is this process's own, no other one has to be asked."""
        self._socketio.emit("message", frame, namespace=REALTIME, to=connection_id, ignore_queue=True)

    def emit(self, event, payload, room):
        for namespace in NAMESPACES:
            self._socketio.emit(event, payload, namespace=namespace, to=room)

    def close(self, connection_id, reason):
        server = self._socketio.server
        close_transport(server.eio, server.manager.eio_sid_from_sid(connection_id, REALTIME), reason)
