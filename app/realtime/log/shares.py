"""How much each publisher holds of something that all of them share, and which publisher has to give some of it up.

The invariant: nothing that users hold takes anything from the server. The server, its services and its admins (`is_trusted`) may
hold the whole limit. Users hold what is left of it, and a reserve of an eighth beyond it where less is left. In each of the two
groups the publisher that holds most gives up first; within a thousandth of the limit, holdings count as equal, so that finding it takes
no longer with many publishers than with few.
"""

from collections.abc import Iterator
from typing import Any

RESERVE = 8  # users may hold an eighth of the limit in any case
STEPS = 1024


class Shares:
    """Of one resource: topics, bytes or message ids. `step` is the difference below which holdings count as equal."""

    def __init__(self, limit: int):
        self.limit = limit
        self.step = max(1, limit // STEPS)
        self._reserve = max(1, limit // RESERVE)
        self._trusted, self._users = _Group(self.step), _Group(self.step)

    def holding(self, holder: Any, is_trusted: bool) -> "Holding":
        """What one publisher holds: nothing yet."""
        return Holding(holder, self._trusted if is_trusted else self._users)

    @property
    def total(self) -> int:
        return self._trusted.total + self._users.total

    @property
    def most(self) -> int:
        """What all together may hold."""
        return self.limit + self._reserve

    def is_over(self) -> bool:
        trusted, users = self._trusted.total, self._users.total
        return trusted + users > self.limit and (trusted > self.limit or users > max(self.limit - trusted, self._reserve))

    def losers(self) -> Iterator[Any]:
        """While it is over: the holders that have to give up, the one that holds most first. To be asked again after each change."""
        return (self._trusted if self._trusted.total > self.limit else self._users).most_first()


class Holding:
    """`amount` is changed with every message, the rank among others only where it matters."""

    __slots__ = ("_group", "_high", "_low", "amount", "holder")

    def __init__(self, holder: Any, group: "_Group"):
        self.holder = holder
        self.amount = 0
        self._group = group
        self._low, self._high = 0, 1  # while `amount` is in between, it keeps its rank

    def change(self, by: int) -> None:
        self.amount += by
        self._group.total += by
        if not self._low <= self.amount < self._high:
            self._low, self._high = self._group.rank(self, self._low)


class _Group:
    """Holdings by rank, which is what they amount to in whole steps. One of nothing has none."""

    def __init__(self, step: int):
        self.total = 0
        self._step = step
        self._ranks: dict[int, dict[Holding, None]] = {}
        self._top = 0

    def most_first(self) -> Iterator[Any]:
        for rank in range(self._top, -1, -1):
            for holding in self._ranks.get(rank, ()):
                yield holding.holder

    def rank(self, holding: Holding, low: int) -> tuple[int, int]:
        """The bounds in which it keeps its new rank; `low` is the one of its old rank, 0 where it had none."""
        if low:
            peers = self._ranks[low // self._step]
            del peers[holding]
            if not peers:
                del self._ranks[low // self._step]
        rank = holding.amount // self._step
        if holding.amount:
            self._ranks.setdefault(rank, {})[holding] = None
            self._top = max(self._top, rank)
        while self._top and self._top not in self._ranks:
            self._top -= 1
        return (max(1, rank * self._step), (rank + 1) * self._step) if holding.amount else (0, 1)
