"""How frames leave: the port that the hub sends through, and the one behind which there is no client.

Sending never raises and never waits for a client; a connection that is gone is passed over. packets.py encodes events once for all,
safe_link.py writes them to Engine.IO's queue, socketio_transport.py is Flask-SocketIO behind the port, wire.py its packets, dispatch.py
the part that answers each, session.py the state of one session, outbox.py what waits for one client, engineio_guard.py (with posts.py,
websocket.py and compression.py) what protects Engine.IO from wrong input, handshake_limits.py what limits handshakes and polls over HTTP.
"""

from typing import Any, Protocol

from app.realtime.transport.packets import Batch

REALTIME = "/realtime"
NAMESPACES = (REALTIME, "/")


class Link(Protocol):
    """The way out to one client. Never blocks and never raises; a link whose client has gone drops what it is given.

    `queued_bytes` were written and are still in the process: not yet taken by the kernel, or by a poll. `progress` changes whenever
    some of them leave. `is_blocked`: the kernel refused bytes, or a polling client leaves more in the queue than it should.
    """

    queued_bytes: int
    progress: int
    is_blocked: bool

    def write(self, batch: Batch) -> None:
        """Append the packets. They leave at the end of the tick, together with what else was written in it."""


class Transport(Protocol):
    """A connection id is the Socket.IO id of a client in /realtime. Frames are plain values, see protocol.py."""

    def listen(self, listener: "Listener") -> None:
        """Report to `listener` from now on."""

    def link(self, connection_id: str) -> Link:
        """Return the link of a connection. Called once, when it connects."""

    def send(self, connection_id: str, frame: dict[str, Any]) -> None:
        """Send an answer or an error, in one order with what is written to the link."""

    def emit(self, event: str, payload: Any, room: str) -> None:
        """Send a business event to every client in the room `user:<id>` or `role:<role>`, of every process."""

    def close(self, connection_id: str, reason: str) -> None:
        """End the transport and log why, so that a stock client reconnects by itself; after a mere disconnect it would not."""


class Listener(Protocol):
    """Hears of links whose clients read slowly."""

    def blocked(self, connection_id: str) -> None:
        """The link has become blocked. Called once each time."""

    def writable(self, connection_id: str) -> None:
        """At least half of what a blocked link had queued has left, and it is not blocked any more."""

    def overflowed(self, connection_id: str) -> None:
        """More is queued for this connection than it may hold back, for example answers, which no window limits."""


class NoLink:
    """Takes everything and sends nothing."""

    queued_bytes = 0
    progress = 0
    is_blocked = False

    def write(self, batch):
        pass


class NoTransport:
    """Before a server is attached (the flask command, a test) there is no client."""

    def listen(self, listener):
        pass

    def link(self, connection_id):
        return NoLink()

    def send(self, connection_id, frame):
        pass

    def emit(self, event, payload, room):
        pass

    def close(self, connection_id, reason):
        pass
