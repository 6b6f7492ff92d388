"""How frames leave: the port that the hub sends through, and the one behind which nobody listens.

Sending never raises and never waits for a client; a connection that is gone is passed over. socketio_transport.py is the emit
of Flask-SocketIO, wire.py its packets, dispatch.py the part that answers each, session.py the state of one session, outbox.py what
waits for one client, engineio_guard.py (with posts.py, websocket.py and compression.py) what protects Engine.IO from wrong input,
handshake_limits.py what limits handshakes and polls over HTTP.
"""

from collections.abc import Iterable
from typing import Any, Protocol

REALTIME = "/realtime"
NAMESPACES = (REALTIME, "/")


class Transport(Protocol):
    """A connection id is the Socket.IO id of a client in /realtime. Frames are plain values, see protocol.py."""

    def send(self, connection_id: str, frame: dict[str, Any]) -> None: ...

    def send_many(self, connection_ids: Iterable[str], frame: dict[str, Any]) -> None: ...

    def emit(self, event: str, payload: Any, room: str) -> None:
        """A business event to everybody in the room `user:<id>` or `role:<role>`, of every process."""

    def queued_bytes(self, connection_id: str) -> int:
        """What was sent to this connection and has not left the process yet."""

    def progress(self, connection_id: str) -> int:
        """A number that changes whenever something of it leaves."""

    def notify_when_writable(self, connection_id: str) -> None:
        """Tell the listener, once, when half of what is queued has left."""

    def close(self, connection_id: str, reason: str) -> None:
        """End the transport and log why, so that a stock client reconnects by itself; after a mere disconnect it would not."""


class NoTransport:
    """Before a server is attached (the flask command, a test) there is nobody to send to."""

    def send(self, connection_id, frame):
        pass

    def send_many(self, connection_ids, frame):
        pass

    def emit(self, event, payload, room):
        pass

    def queued_bytes(self, connection_id):
        return 0

    def progress(self, connection_id):
        return 0

    def notify_when_writable(self, connection_id):
        pass

    def close(self, connection_id, reason):
        pass
