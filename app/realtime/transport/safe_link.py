"""Writes to a client through Engine.IO's own queue: for polling, for TLS, and where the fast road is turned off."""

from collections.abc import Callable

from engineio.packet import MESSAGE, Packet

from app.realtime.transport.outbox import Outbox
from app.realtime.transport.packets import Batch


class SafeLink:
    """The link to one outbox. It becomes blocked when more than half of `limit` bytes are queued, until at most a quarter is."""

    def __init__(self, outbox: Outbox, limit: int, on_blocked: Callable[[], None], on_writable: Callable[[], None]):
        self._outbox = outbox
        self._limit = limit
        self._on_blocked = on_blocked
        self._on_writable = on_writable
        self.is_blocked = False

    @property
    def queued_bytes(self) -> int:
        """Bytes that no poll has taken and the websocket's writer has not written."""
        return self._outbox.bytes

    @property
    def progress(self) -> int:
        """The number of packets that have left."""
        return self._outbox.written

    def write(self, batch: Batch) -> None:
        """Put the packets into the queue."""
        if batch.queued is None:
            batch.queued = [Packet(MESSAGE, text) for text in batch.packets]
        for packet in batch.queued:
            self._outbox.put(packet)
        if self._outbox.bytes > self._limit // 2 and not self.is_blocked:
            self.is_blocked = True
            self._outbox.on_room = (self._limit // 4, self._has_room)
            self._on_blocked()

    def _has_room(self) -> None:
        self.is_blocked = False
        self._on_writable()
