"""Limits the memory of unfinished requests and websocket messages in this process. Pure: it takes values and `now`.

Invariants:
1. After every call all connections together hold at most `max_bytes`, and those of unknown clients at most `max_unknown_bytes`.
2. A connection that was dropped holds no bytes and never gets any again.
3. A connection whose request the application processes is never dropped: its client has sent everything.
4. Connections are dropped from the party with the most byte-seconds, the one with the most byte-seconds first. So a client that holds
   many bytes for a long time gives way to clients that send little or quickly, however many connections it opens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush

FREED_PART = 8  # at the limit one eighth of it is freed at once, because each search looks at all connections
YOUNGEST_S = 0.1  # added to the age of all bytes, so that those that have just arrived count too


class ConnectionBytes:
    """The bytes that one connection has received of an unfinished request or message.

    All connections of one `party` (an address or a user) count together. `drop` is called when this connection has to free its bytes.
    """

    __slots__ = ("bytes", "drop", "is_dropped", "is_in_work", "is_known", "party", "since")

    def __init__(self, party: str, drop: Callable[[], None] | None):
        self.party = party
        self.drop = drop
        self.is_known = False
        self.is_in_work = False
        self.is_dropped = False
        self.bytes = 0
        self.since = 0.0


class UnfinishedBytes:
    """Counts the bytes of all connections, and drops connections at a limit. Times are seconds of any clock that never goes back."""

    def __init__(self, max_bytes: int, max_unknown_bytes: int):
        self.max_bytes = max_bytes
        self.max_unknown_bytes = max_unknown_bytes
        self.bytes = 0
        self.unknown_bytes = 0
        self.dropped = 0
        self._connections: set[ConnectionBytes] = set()

    def resize(self, connection: ConnectionBytes, size: int, now: float) -> None:
        """Record that the connection holds `size` bytes now. This may drop connections, and this one among them."""
        if connection.is_dropped:
            return
        if not connection.bytes:
            connection.since = now
            self._connections.add(connection)
        grows = size > connection.bytes
        self._count(connection, size)
        if grows:
            self._enforce_limits(now)

    def identify(self, connection: ConnectionBytes, party: str, is_known: bool) -> None:
        """Count the connection's bytes as those of `party` from now on. `is_known` tells whether the client has a valid credential."""
        size = connection.bytes
        self._count(connection, 0)
        connection.party, connection.is_known = party, is_known
        if size:
            self._connections.add(connection)
            self._count(connection, size)

    def _count(self, connection: ConnectionBytes, size: int) -> None:
        change = size - connection.bytes
        connection.bytes = size
        self.bytes += change
        if not connection.is_known:
            self.unknown_bytes += change
        if not size:
            self._connections.discard(connection)

    def _enforce_limits(self, now: float) -> None:
        if self.unknown_bytes > self.max_unknown_bytes:
            excess = self.unknown_bytes - self.max_unknown_bytes + self.max_unknown_bytes // FREED_PART
            self._drop_largest([connection for connection in self._connections if not connection.is_known], excess, now)
        if self.bytes > self.max_bytes:
            self._drop_largest(self._connections, self.bytes - self.max_bytes + self.max_bytes // FREED_PART, now)

    def _drop_largest(self, connections: Iterable[ConnectionBytes], excess: int, now: float) -> None:
        for connection in list(largest(connections, excess, now)):
            self._count(connection, 0)
            connection.is_dropped = True
            self.dropped += 1
            if connection.drop is not None:
                connection.drop()


def largest(connections: Iterable[ConnectionBytes], excess: int, now: float) -> Iterator[ConnectionBytes]:
    """Yield connections in the order of invariant 4, until dropping them would free `excess` bytes."""
    parties: defaultdict[str, list[tuple[float, int, ConnectionBytes]]] = defaultdict(list)
    for connection in connections:
        if not connection.is_in_work:
            parties[connection.party].append((connection.bytes * (now - connection.since + YOUNGEST_S), id(connection), connection))
    heap = [(-sum(row[0] for row in rows), party, sorted(rows)) for party, rows in parties.items()]
    heapify(heap)
    while excess > 0 and heap:
        negative_total, party, rows = heappop(heap)
        score, _, connection = rows.pop()
        excess -= connection.bytes
        yield connection
        if rows:
            heappush(heap, (negative_total + score, party, rows))
