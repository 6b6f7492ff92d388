"""Reports to health and metrics how much of the spool waits for MongoDB.

Every worker reports the same, whether it drains or not: it reads the folder, and the progress that the draining worker saved at most a
second ago.
"""

from pathlib import Path
from typing import Any

from app.clock import Clock
from app.metrics import Metrics
from app.storage.leader_lock import LeaderLock
from app.storage.segments.segment import lines_from, started_at
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.event_lines import Unusable, decode, segments
from app.telemetry.spool.progress import Progress

WAITS_FOR = "waitsFor"  # in the progress: why the drainer waits
MONGO = "MongoDB: "


class Backlog:
    """`lock` and `progress` are those of this worker's drainer."""

    def __init__(self, spool: SpoolSink, lock: LeaderLock, progress: Progress, clock: Clock, metrics: Metrics):
        self._spool = spool
        self._lock = lock
        self._progress = progress
        self._clock = clock
        self._metrics = metrics

    @property
    def waits_for(self) -> str:
        """Why the drainer waits; empty while it works."""
        return self._progress.state.get(WAITS_FOR, "")

    @property
    def is_mongo_away(self) -> bool:
        """Whether it waits because MongoDB does not answer."""
        return self.waits_for.startswith(MONGO)

    def check(self) -> dict[str, Any]:
        """Return for health the state of the spool, `degraded` while something waits in it."""
        state, backlog = self._spool.check(), self._measure()
        if state["state"] == "up" and backlog["backlogBytes"]:
            state["state"] = "degraded"
        is_draining = backlog["backlogBytes"] > 0 and not self.waits_for
        return {**state, **backlog, "draining": is_draining, **({WAITS_FOR: self.waits_for} if self.waits_for else {})}

    def watch(self) -> None:
        """Run every second: update the metrics, and close this worker's own segment when it is no longer written to."""
        backlog = self._measure()
        if not self.is_mongo_away:
            self._spool.close_unused()
        self._metrics.spool_backlog_bytes.set(backlog["backlogBytes"])
        self._metrics.spool_oldest_age_seconds.set(backlog["oldestAgeMs"] / 1000)

    def _measure(self) -> dict[str, Any]:
        if not self._lock.is_held:
            self._progress.load()
        waiting = [(path, offset, left) for path, offset, left in map(self._left, segments(self._spool.folder)) if left > 0]
        age = max(0, self._clock() - _accepted_at(*waiting[0][:2])) if waiting else 0
        return {
            "backlogBytes": sum(left for _, _, left in waiting),
            "backlogSegments": len(waiting),
            "oldestAgeMs": age,
            "drained": self._progress.state.get("drained", 0),
            "rejected": self._progress.state.get("rejected", 0),
        }

    def _left(self, path: Path) -> tuple[Path, int, int]:
        """Return the path with its offset and the bytes after it; none of a file that is gone."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return path, 0, 0
        offset = self._progress.offset(path, found.st_ino)
        return path, offset, found.st_size - offset


def _accepted_at(path: Path, offset: int) -> int:
    """Return when the first event after the offset was accepted, in epoch milliseconds."""
    try:
        with open(path, "rb") as file:
            _, line = next(lines_from(file, offset, is_complete=False))
            return decode(line).created_at
    except (OSError, StopIteration, Unusable):
        return started_at(path)
