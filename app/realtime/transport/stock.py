"""Frames by the stock emit: one encoding per frame, a queue and a greenlet per connection."""

from flask_socketio import SocketIO
from socketio import RedisManager

from app.errors import ApiError
from app.realtime.transport import NAMESPACES, REALTIME
from app.realtime.transport.guard import close_transport


class RoomQueue(RedisManager):
    """What Flask-SocketIO takes for `message_queue`, so that any process with Redis can emit to rooms; only that a message
    which did not leave is not called sent. Clients of this very process may have got it by then."""

    def __init__(self, url: str):
        super().__init__(url, channel="flask-socketio")

    def _publish(self, data):
        if super()._publish(data) is None:
            raise ApiError("unavailable", "Redis does not answer; other processes did not get the event.", retry_after_ms=1000)


class SocketIOTransport:
    def __init__(self, socketio: SocketIO):
        self._socketio = socketio

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

    def close(self, connection_id):
        server = self._socketio.server
        close_transport(server.eio, server.manager.eio_sid_from_sid(connection_id, REALTIME))
