"""What unfinished requests and websocket messages hold in memory, bounded over the whole process. Pure: values and `now`.

Invariants:
1. After every call the holdings have at most `max_bytes`, and those of unknown clients at most `max_unknown_bytes`, together.
2. A holding that was dropped has no bytes, and never gets any again.
3. A holding that the application works on is never dropped: its client has sent everything.
4. The party with most byte-seconds loses first, and of its holdings the one with most. So a client that holds many bytes for
   long makes room for one that sends little, or quickly, however many connections it opens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush

ROOM = 8  # a bound that is met makes room for its eighth part at once, since to find the losers costs a look at all
YOUNGEST_S = 0.1  # so that bytes that have just come count, too


class ConnectionBytes:
    """The bytes of one connection that are not a whole request or message yet. `party` shares its fate with its others;
    `drop` is called without arguments when it lost."""

    __slots__ = ("bytes", "drop", "is_dropped", "is_in_work", "is_known", "party", "since")

    def __init__(self, party: str, drop: Callable[[], None]):
        self.party = party
        self.drop = drop
        self.is_known = False
        self.is_in_work = False
        self.is_dropped = False
        self.bytes = 0
        self.since = 0.0


class UnfinishedBytes:
    """Times are seconds of any clock that never goes back."""

    def __init__(self, max_bytes: int, max_unknown_bytes: int):
        self.max_bytes = max_bytes
        self.max_unknown_bytes = max_unknown_bytes
        self.bytes = 0
        self.unknown_bytes = 0
        self.dropped = 0
        self._holdings: set[ConnectionBytes] = set()

    def resize(self, holding: ConnectionBytes, size: int, now: float) -> None:
        """The holding has `size` bytes now. It, or others, may be dropped for that."""
        if holding.is_dropped:
            return
        if not holding.bytes:
            holding.since = now
            self._holdings.add(holding)
        grows = size > holding.bytes
        self._count(holding, size)
        if grows:
            self._make_room(now)

    def identify(self, holding: ConnectionBytes, party: str, is_known: bool) -> None:
        """The client has said who it is; what it holds counts for `party` from now on."""
        size = holding.bytes
        self._count(holding, 0)
        holding.party, holding.is_known = party, is_known
        if size:
            self._holdings.add(holding)
            self._count(holding, size)

    def _count(self, holding: ConnectionBytes, size: int) -> None:
        change = size - holding.bytes
        holding.bytes = size
        self.bytes += change
        if not holding.is_known:
            self.unknown_bytes += change
        if not size:
            self._holdings.discard(holding)

    def _make_room(self, now: float) -> None:
        if self.unknown_bytes > self.max_unknown_bytes:
            excess = self.unknown_bytes - self.max_unknown_bytes + self.max_unknown_bytes // ROOM
            self._drop_losers([holding for holding in self._holdings if not holding.is_known], excess, now)
        if self.bytes > self.max_bytes:
            self._drop_losers(self._holdings, self.bytes - self.max_bytes + self.max_bytes // ROOM, now)

    def _drop_losers(self, holdings: Iterable[ConnectionBytes], excess: int, now: float) -> None:
        for holding in list(losers(holdings, excess, now)):
            self._count(holding, 0)
            holding.is_dropped = True
            self.dropped += 1
            holding.drop()


def losers(holdings: Iterable[ConnectionBytes], excess: int, now: float) -> Iterator[ConnectionBytes]:
    """Those to drop, the first first, so that `excess` bytes are free."""
    parties = defaultdict(list)
    for holding in holdings:
        if not holding.is_in_work:
            parties[holding.party].append((holding.bytes * (now - holding.since + YOUNGEST_S), id(holding), holding))
    heap = [(-sum(row[0] for row in rows), party, sorted(rows)) for party, rows in parties.items()]
    heapify(heap)
    while excess > 0 and heap:
        negative_total, party, rows = heappop(heap)
        score, _, holding = rows.pop()
        excess -= holding.bytes
        yield holding
        if rows:
            heappush(heap, (negative_total + score, party, rows))
