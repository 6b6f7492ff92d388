"""Many callers, one commit: whoever comes while a commit is under way shares the next one with all who come meanwhile.

At low load a caller is alone and waits for nobody; at high load the cost of a sync or of a command is divided. The
promise: `submit` returns or raises only after the commit that held its item has ended, and each item is in exactly one.
"""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from gevent.event import Event
from gevent.lock import Semaphore


class Interrupted(Exception):
    """Whoever led the commit was killed in the middle of it; nobody knows how far it came."""


class _Group:
    def __init__(self):
        self.items: list[Any] = []
        self.size = 0
        self.results: list[Any] = []
        self.error: Exception | None = None
        self.done = Event()


class GroupCommit:
    """`commit(items)` gives one result an item, or raises for all of them. `lanes` commits run at once; a group of
    `enough` in size is closed, and who comes then begins another."""

    def __init__(self, commit: Callable[[list[Any]], list[Any]], *, lanes: int, enough: int):
        self._commit = commit
        self._lanes = Semaphore(lanes)
        self._enough = enough
        self._open: _Group | None = None
        self.waiting = 0  # callers that have not been answered yet

    def submit(self, item: Any, size: int) -> Any:
        group = self._open
        is_leader = group is None or group.size >= self._enough
        if is_leader:
            group = self._open = _Group()
        place = len(group.items)
        group.items.append(item)
        group.size += size
        self.waiting += 1
        try:
            if is_leader:
                self._lead(group)
            else:
                group.done.wait()
        finally:
            self.waiting -= 1
        if group.error is not None:
            try:
                raise group.error
            finally:
                del group  # else the error, its frames and the group hold one another, with all that was to be committed
        return group.results[place]

    @contextmanager
    def pause(self):
        """While it is held no commit runs; only for one lane."""
        with self._lanes:
            yield

    def _lead(self, group: _Group) -> None:
        try:
            with self._lanes:
                self._close(group)
                group.results = self._commit(group.items)
        except Exception as error:
            group.error = error
        except BaseException:
            group.error = Interrupted("the commit was interrupted")
            raise
        finally:
            self._close(group)
            group.done.set()

    def _close(self, group: _Group) -> None:
        if self._open is group:
            self._open = None
