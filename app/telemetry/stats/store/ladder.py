"""Writes deltas to MongoDB. While MongoDB does not answer, they wait in the file (`delta_queue`), and are moved when it answers again.

Invariants: (1) when `apply` returns, the delta is in MongoDB or in the file: it never waits in memory behind deltas that are being moved.
(2) While a delta of this worker waits in the file, its next ones go there too, since MongoDB ignores a delta whose number is lower than
that of the last one. A delta keeps its number while it waits. So it counts once, even where MongoDB had applied it and the answer was
lost, or where two workers move the same one.
"""

from collections.abc import Iterable
from typing import Any

from gevent.lock import BoundedSemaphore

from app.clock import Clock
from app.logs import get_logger
from app.storage.circuit_breaker import Breaker
from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import Bucket, Delta
from app.telemetry.stats.store import RollupStore
from app.telemetry.stats.store.delta_queue import DeltaQueue
from app.telemetry.stats.store.file import FileRollups

log = get_logger(__name__)


class RollupLadder:
    """`primary` is the store in MongoDB."""

    def __init__(self, primary: RollupStore, file: FileRollups, clock: Clock):
        self._primary = primary
        self._file = file
        self._queue = DeltaQueue(file, clock)
        self._clock = clock
        self._breaker = Breaker()
        self._has_queued_buckets = False
        self._may_wait = True  # deltas of an earlier process may be in the queue; those of this process need not wait for them
        self._has_queued = False  # a delta of this process
        self._one_at_a_time = BoundedSemaphore(1)  # `apply`, and the end of catching up
        self._catching_up = BoundedSemaphore(1)

    def apply(self, delta: Delta) -> None:
        """Add a delta, in MongoDB or in the queue. Raises StorageUnavailable where both fail."""
        with self._one_at_a_time:
            if self._has_queued or not self._is_applied(delta):
                self._queue.put(delta)
                self._may_wait = self._has_queued = True

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> Iterable[Bucket]:
        """Return the buckets that MongoDB has."""
        return self._primary.read(level_ms, app, env, since, until)

    def apps(self, at_most: int) -> list[str]:
        """Return the applications that MongoDB has."""
        return self._primary.apps(at_most)

    def check(self) -> dict[str, Any]:
        """Return the state of the store and of the file; whether MongoDB answers is a check of its own."""
        return self._primary.check() | self._file.check()

    def tend(self) -> None:
        """Run every second: move the queued deltas to MongoDB, while others may call `apply`; and tend the store in MongoDB."""
        self._primary.tend()
        if self._may_wait and self._catching_up.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._catching_up.release()

    def _is_applied(self, delta: Delta) -> bool:
        """Return False where MongoDB does not answer, or is left alone after a failure."""
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
                    self._queue.remove(delta)
                    count += 1
        except StorageUnavailable as error:
            self._failed(error, now)
            return
        self._breaker.succeeded()
        if count:
            log.info("rollups_caught_up", deltas=count)

    def _is_caught_up(self) -> bool:
        """Return True where the queue is empty. The second look, under the lock, sees a delta that was queued after the first."""
        if self._waiting():
            return False
        with self._one_at_a_time:
            is_empty = not self._waiting()
            if is_empty:
                self._may_wait = self._has_queued = False
            return is_empty

    def _failed(self, error: StorageUnavailable, now: int) -> None:
        if self._breaker.failed(now):
            log.warning("rollups_wait_for_mongo", error=str(error)[:300])

    def _waiting(self) -> list[Delta]:
        try:
            if not self._has_queued_buckets:
                self._queue.put_buckets()
                self._has_queued_buckets = True
            return self._queue.first()
        except StorageUnavailable:
            if self._has_queued:
                raise
            return []  # a file that cannot be read has no delta of this process, and MongoDB works without it
