"""What happens to the numbers when MongoDB is away: their deltas wait in the file, and go to MongoDB first when it is back.

A delta keeps its number while it waits, so it does no harm when MongoDB had taken it after all, or when two workers bring
the same one. While one of a worker's deltas waits, its next ones wait behind it. The file grows no faster than the spool,
which is filling at the same time, and no longer.
"""

from threading import Lock

from app.breaker import Breaker
from app.clock import Clock
from app.logs import get_logger
from app.telemetry.stats.cell import Cell, Delta
from app.telemetry.stats.store import RollupStore, RollupsUnavailable
from app.telemetry.stats.store.file import FileRollups

log = get_logger(__name__)


class RollupLadder:
    def __init__(self, primary: RollupStore, file: FileRollups, clock: Clock):
        self._primary = primary
        self._file = file
        self._clock = clock
        self._breaker = Breaker()
        self._is_packed = False
        self._may_wait = True  # an earlier process may have left something
        self._has_parked = False
        self._one_at_a_time = Lock()

    def apply(self, delta: Delta) -> None:
        """Raises RollupsUnavailable when the file failed, too."""
        with self._one_at_a_time:
            if not self._reaches_primary(delta):
                self._file.park(delta)
                self._may_wait = self._has_parked = True

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Cell]:
        return self._primary.read(level_ms, app, env, since, until)

    def tend(self) -> None:
        """Now and then, for a time in which no events come."""
        with self._one_at_a_time:
            if self._may_wait:
                self._reaches_primary(None)

    def _reaches_primary(self, delta: Delta | None) -> bool:
        now = self._clock()
        if not self._breaker.lets_through(now):
            return False
        try:
            self._catch_up()
            if delta is not None:
                self._primary.apply(delta)
        except RollupsUnavailable as error:
            if self._breaker.failed(now):
                log.warning("rollups_wait", error=str(error)[:300])
            return False
        if self._breaker.succeeded():
            log.info("rollups_caught_up")
        return True

    def _catch_up(self) -> None:
        while self._may_wait:
            waiting = self._waiting()
            for delta in waiting:
                self._primary.apply(delta)
                self._file.forget(delta)
            self._may_wait = self._has_parked = bool(waiting)

    def _waiting(self) -> list[Delta]:
        try:
            if not self._is_packed:
                self._file.pack()
                self._is_packed = True
            return self._file.waiting()
        except RollupsUnavailable:
            if self._has_parked:
                raise
            return []  # a broken file holds nothing of ours, and MongoDB does not need it
