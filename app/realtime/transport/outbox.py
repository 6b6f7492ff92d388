"""What waits to leave for one client, counted: engineio's queue, which otherwise has neither a size nor an end.

A packet counts until it is written: by the websocket's writer, which says so packet by packet, or by an answer to a poll,
which is known to have arrived when the next poll comes. Over `limit` the client is reported, and what comes after that is
dropped: its connection is about to be closed.
"""

from collections import deque
from collections.abc import Callable

from gevent.queue import Empty, JoinableQueue

ENVELOPE_BYTES = 64  # what a packet costs beside its text, so that many small ones count too


class Outbox(JoinableQueue):
    def __init__(self, limit: int, *_, **__):
        super().__init__()
        self.bytes = 0
        self.written = 0
        self.on_room: tuple[int, Callable[[], None]] | None = None  # call it, once, when no more bytes than that are left
        self.on_overflow: Callable[[], None] | None = None
        self.websocket = None
        self._limit = limit
        self._in_hand: deque[int] = deque()
        self._has_overflowed = False

    def put(self, packet, block=True, timeout=None):
        if packet is not None:
            if self._has_overflowed:
                return
            self.bytes += _size(packet)
        super().put(packet, block, timeout)
        if self.bytes > self._limit and self.on_overflow is not None:
            self._has_overflowed = True
            self.on_overflow()

    def get(self, block=True, timeout=None):
        """engineio blocks for the first packet of a turn: all that it took before has been written by then."""
        if block and self._in_hand:
            self._leave(len(self._in_hand))
        packet = super().get(block, timeout)
        if packet is not None:
            self._in_hand.append(_size(packet))
        return packet

    def note_written(self) -> None:
        """One packet, the oldest that was taken, has left."""
        if self._in_hand:
            self._leave(1)

    def reopen(self) -> None:
        """For a last word to a client whose connection is closed next: all that still waits is dropped for it."""
        self.drain()
        self._has_overflowed = False
        self.on_overflow = None

    def drain(self) -> list:
        """All packets that still wait, which then wait no more."""
        packets = []
        try:
            while True:
                packet = super().get(block=False)
                self.task_done()
                if packet is not None:
                    self.bytes -= _size(packet)
                    packets.append(packet)
        except Empty:
            return packets

    def _leave(self, count: int) -> None:
        for _ in range(count):
            self.bytes -= self._in_hand.popleft()
        self.written += count
        if self.on_room is not None and self.bytes <= self.on_room[0]:
            (_, tell), self.on_room = self.on_room, None
            tell()


def _size(packet) -> int:
    """In bytes as they are sent, worked out once however many clients a packet goes to."""
    size = getattr(packet, "wire_bytes", None)
    if size is None:
        data = packet.data
        text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data if isinstance(data, bytes) else b""
        size = packet.wire_bytes = len(text) + ENVELOPE_BYTES
    return size
