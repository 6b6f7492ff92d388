"""Frames by the stock emit: one encoding per frame, a queue and a greenlet per connection."""

from collections.abc import Callable
from functools import partial

import gevent
from flask_socketio import SocketIO
from socketio import RedisManager

from app.errors import ApiError
from app.realtime.transport import NAMESPACES, REALTIME
from app.realtime.transport.guard import close_transport
from app.realtime.transport.outbox import Outbox


class RoomQueue(RedisManager):
    """What Flask-SocketIO takes for `message_queue`, so that any process with Redis can emit to rooms; only that a message
    which did not leave is not called sent. Clients of this very process may have got it by then."""

    def __init__(self, url: str):
        super().__init__(url, channel="flask-socketio")

    def _publish(self, data):
        if super()._publish(data) is None:
            raise ApiError("unavailable", "Redis does not answer; other processes did not get the event.", retry_after_ms=1000)


class SocketIOTransport:
    """`on_writable` and `on_overflow` are called with a connection id."""

    def __init__(self, socketio: SocketIO, on_writable: Callable[[str], None], on_overflow: Callable[[str], None]):
        self._socketio = socketio
        self._on_writable = on_writable
        self._on_overflow = on_overflow
        self._outboxes: dict[str, Outbox] = {}

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
            self._on_overflow(connection_id)

    def closed(self, connection_id: str) -> None:
        self._outboxes.pop(connection_id, None)

    def send(self, connection_id, frame):
        self.send_many([connection_id], frame)

    def send_many(self, connection_ids, frame):
        """`ignore_queue`: these connections are this process's own, nobody else needs to hear of it."""
        ids = list(connection_ids)
        if ids:
            self._socketio.emit("message", frame, namespace=REALTIME, to=ids, ignore_queue=True)

    def emit(self, event, payload, room):
        for namespace in NAMESPACES:
            self._socketio.emit(event, payload, namespace=namespace, to=room)

    def queued_bytes(self, connection_id):
        outbox = self._outboxes.get(connection_id)
        return outbox.bytes if outbox else 0

    def progress(self, connection_id):
        outbox = self._outboxes.get(connection_id)
        return outbox.written if outbox else 0

    def notify_when_writable(self, connection_id):
        outbox = self._outboxes.get(connection_id)
        if outbox:
            outbox.on_room = partial(self._on_writable, connection_id)

    def close(self, connection_id):
        server = self._socketio.server
        close_transport(server.eio, server.manager.eio_sid_from_sid(connection_id, REALTIME))
