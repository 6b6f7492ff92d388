"""What happens to the numbers when MongoDB is away: their deltas wait in the file, and go to MongoDB when it is back.

Invariants: (1) when `apply` returns, the delta is in MongoDB or in the file: it never waits in memory behind what has to be caught
up; (2) while one of a worker's deltas waits in the file its next ones wait behind it, since MongoDB takes a worker's deltas in the
order of their numbers and ignores an earlier one that comes later. A delta keeps its number while it waits, so it does no harm when
MongoDB had taken it after all, or when two workers bring the same one.
"""

from typing import Any

from gevent.lock import BoundedSemaphore

from app.clock import Clock
from app.logs import get_logger
from app.storage.circuit_breaker import Breaker
from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import Bucket, Delta
from app.telemetry.stats.store import RollupStore
from app.telemetry.stats.store.file import FileRollups

log = get_logger(__name__)


class RollupLadder:
    def __init__(self, primary: RollupStore, file: FileRollups, clock: Clock):
        self._primary = primary
        self._file = file
        self._clock = clock
        self._breaker = Breaker()
        self._is_packed = False
        self._may_wait = True  # an earlier process may have left something; that is no reason for ours to wait
        self._has_parked = False
        self._one_at_a_time = BoundedSemaphore(1)  # of `apply`, and of the end of catching up
        self._catching_up = BoundedSemaphore(1)

    def apply(self, delta: Delta) -> None:
        """Raises StorageUnavailable when the file failed, too."""
        with self._one_at_a_time:
            if self._has_parked or not self._is_taken(delta):
                self._file.park(delta)
                self._may_wait = self._has_parked = True

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Bucket]:
        return self._primary.read(level_ms, app, env, since, until)

    def apps(self, at_most: int) -> list[str]:
        return self._primary.apps(at_most)

    def check(self) -> dict[str, Any]:
        """Of the file; MongoDB has a check of its own."""
        return self._primary.check() | self._file.check()

    def tend(self) -> None:
        """Every second: bring what waits to MongoDB, while `apply` goes on; and let MongoDB tend its own."""
        self._primary.tend()
        if self._may_wait and self._catching_up.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._catching_up.release()

    def _is_taken(self, delta: Delta) -> bool:
        now = self._clock()
        if not self._breaker.lets_through(now):
            return False
        try:
            self._primary.apply(delta)
        except StorageUnavailable as error:
            self._failed(error, now)
            return False
        self._breaker.succeeded()
        return True

    def _catch_up(self) -> None:
        now = self._clock()
        if not self._breaker.lets_through(now):
            return
        count = 0
        try:
            while not self._is_caught_up():
                for delta in self._waiting():
                    self._primary.apply(delta)
                    self._file.forget(delta)
                    count += 1
        except StorageUnavailable as error:
            self._failed(error, now)
            return
        self._breaker.succeeded()
        if count:
            log.info("rollups_caught_up", deltas=count)

    def _is_caught_up(self) -> bool:
        """Nothing waits any more, and nothing was parked since that was found."""
        if self._waiting():
            return False
        with self._one_at_a_time:
            is_empty = not self._waiting()
            if is_empty:
                self._may_wait = self._has_parked = False
            return is_empty

    def _failed(self, error: StorageUnavailable, now: int) -> None:
        if self._breaker.failed(now):
            log.warning("rollups_wait", error=str(error)[:300])

    def _waiting(self) -> list[Delta]:
        try:
            if not self._is_packed:
                self._file.pack()
                self._is_packed = True
            return self._file.waiting()
        except StorageUnavailable:
            if self._has_parked:
                raise
            return []  # a file that cannot be read holds nothing of ours, and MongoDB does not need it
