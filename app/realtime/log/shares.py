"""How much each publisher holds of a shared resource, and which publisher has to give some of it up. Pure.

The invariant: users never take anything from the server. The server, its services and its admins (`is_trusted`) may hold the whole
limit. Users hold the rest of it, and at least a reserve of an eighth beyond it. In each of the two groups the publisher that
holds most gives up first. Holdings within a thousandth of the limit count as equal, so that finding that publisher takes constant
time.
"""

from collections.abc import Iterator
from typing import Any

RESERVE = 8  # users may hold an eighth of the limit in any case
STEPS = 1024


class Shares:
    """The shares of one resource: topics, bytes or message ids. Holdings that differ by less than `step` count as equal."""

    def __init__(self, limit: int):
        self.limit = limit
        self.step = max(1, limit // STEPS)
        self._reserve = max(1, limit // RESERVE)
        self._trusted, self._users = _Group(self.step), _Group(self.step)

    def holding(self, holder: Any, is_trusted: bool) -> "Holding":
        """Return a new, empty holding."""
        return Holding(holder, self._trusted if is_trusted else self._users)

    @property
    def total(self) -> int:
        """The sum of all holdings."""
        return self._trusted.total + self._users.total

    @property
    def most(self) -> int:
        """The most that all publishers together may hold."""
        return self.limit + self._reserve

    def is_over(self) -> bool:
        """Whether a publisher has to give something up."""
        trusted, users = self._trusted.total, self._users.total
        return trusted + users > self.limit and (trusted > self.limit or users > max(self.limit - trusted, self._reserve))

    def losers(self) -> Iterator[Any]:
        """Yield the holders that have to give up, the largest first. Valid while `is_over`, until the next change."""
        return (self._trusted if self._trusted.total > self.limit else self._users).most_first()


class Holding:
    """What one publisher holds. `amount` changes with every message, its rank only when it crosses a step."""

    __slots__ = ("_group", "_high", "_low", "amount", "holder")

    def __init__(self, holder: Any, group: "_Group"):
        self.holder = holder
        self.amount = 0
        self._group = group
        self._low, self._high = 0, 1  # while `amount` is in between, it keeps its rank

    def change(self, by: int) -> None:
        """Add to the amount, or with a negative number take from it."""
        self.amount += by
        self._group.total += by
        if not self._low <= self.amount < self._high:
            self._low, self._high = self._group.rank(self, self._low)


class _Group:
    """Holdings by rank: their amount in whole steps. An empty holding has no rank."""

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
        """Move the holding to its new rank and return the bounds of that rank. `low` is the lower bound of the old one, or 0."""
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
