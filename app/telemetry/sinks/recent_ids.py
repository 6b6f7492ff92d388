"""The ids that came last. Pure; two sets, since a set takes a batch in one step and one in the order of arrival does not.

Bounded: when the newer set has `size` ids it becomes the older one, and what that had been is forgotten as a whole. So the
newest `size` are known for sure, and never more than twice as many, and a batch.
"""

from collections.abc import Collection, Iterable


class RecentIds:
    def __init__(self, size: int):
        self._size = size
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def add(self, ids: Collection[str]) -> None:
        """The oldest first, where there are more than one call can be remembered."""
        if self._size:
            self._newer.update(ids)
        if len(self._newer) > self._size:
            self._older, self._newer = self._newer, set()

    def discard(self, ids: Iterable[str]) -> None:
        self._newer.difference_update(ids)
        self._older.difference_update(ids)

    def among(self, ids: Collection[str]) -> list[str]:
        """Those that are known."""
        if self._newer.isdisjoint(ids) and self._older.isdisjoint(ids):
            return []
        return [id_ for id_ in ids if id_ in self._newer or id_ in self._older]
