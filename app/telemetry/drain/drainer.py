"""Moves the spool into MongoDB as soon as MongoDB answers again, and slower than live traffic (`pace`, `live_traffic`).

Every worker runs a drainer. The one that holds the lock of the data directory moves the segments (files of the spool), the oldest
first; another one takes over within a second when it dies. A segment that cannot be read, or that MongoDB refuses for an
unforeseen reason, is left for the next round and does not hold up those after it.
"""

from collections.abc import Callable
from pathlib import Path

from gevent.event import Event

from app.clock import Clock
from app.logs import get_logger
from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.storage.leader_lock import LeaderLock
from app.telemetry.drain.backlog import MONGO, WAITS_FOR, Backlog
from app.telemetry.drain.pace import Pace
from app.telemetry.drain.segment_mover import SegmentMover
from app.telemetry.sinks import SinkRefused
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.event_lines import segments
from app.telemetry.spool.progress import Progress

log = get_logger(__name__)
LOCK, PROGRESS = ".drainer.lock", ".drainer.progress"
ROUND_EVERY_S = 1.0


class Drainer:
    """`target` names the database, since progress holds for one database only. `is_busy` tells whether live events arrive."""

    def __init__(
        self,
        spool: SpoolSink,
        sink: MongoSink,
        clock: Clock,
        metrics: Metrics,
        *,
        target: str,
        max_per_second: int,
        is_busy: Callable[[], bool],
    ):
        self._folder = spool.folder
        self._pace = Pace(max_per_second)
        self._lock = LeaderLock(spool.folder / LOCK)
        self._progress = Progress(spool.folder / PROGRESS, target)
        self.backlog = Backlog(spool, self._lock, self._progress, clock, metrics)
        self._mover = SegmentMover(
            spool, sink, self._progress, self._pace, metrics, is_busy=is_busy, on_acknowledged=self._report_mongo_answers
        )

    def run(self, stop: Event) -> None:
        """Run in the background, until soon after `stop` is set."""
        try:
            wait_s = 0.0
            while not stop.wait(wait_s):
                wait_s = self._run_round(stop)
        finally:
            self._progress.save()
            self._lock.release()

    def _run_round(self, stop: Event) -> float:
        """Move all segments if this worker is the leader; return the seconds until the next round."""
        try:
            if not self._is_leader():
                return ROUND_EVERY_S
            trouble = self._move_all(stop)
        except StorageUnavailable as error:
            trouble = f"{MONGO}{error}"
            self._mover.doubt_offsets()
        except OSError as error:
            trouble = f"{self._folder}: {error.strerror}"
        self._report(trouble)
        self._progress.save()
        return self._pace.failed() if trouble else ROUND_EVERY_S

    def _is_leader(self) -> bool:
        """Take the lock if it is free. A new leader first loads the progress that the one before it saved."""
        if self._lock.is_held:
            return True
        if not self._lock.acquire():
            return False
        self._progress.load()
        self._mover.doubt_offsets()
        log.info("drainer_is_leader", folder=str(self._folder))
        return True

    def _move_all(self, stop: Event) -> str | None:
        """Return why a segment has to wait, None if none has to. Raises StorageUnavailable, OSError."""
        found, trouble = segments(self._folder), None
        self._progress.keep_only(found)
        self._mover.keep_only(found)
        for path in found:
            if not stop.is_set():
                trouble = self._move(path, stop) or trouble
        return trouble

    def _move(self, path: Path, stop: Event) -> str | None:
        """Return why this segment has to wait for another round. Raises StorageUnavailable where all segments have to."""
        try:
            self._mover.move(path, stop)
        except SinkRefused as error:
            return f"{path.name}: {error}"
        except StorageUnavailable:
            raise
        except FileNotFoundError:
            return None  # another process has moved and deleted it
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        except Exception as error:  # without this, one odd file would end every process that reads it
            log.exception("segment_not_moved", segment=path.name)
            return f"{path.name}: {error!r}"
        return None

    def _report_mongo_answers(self) -> None:
        """Clear the trouble at once: moving the rest of a long segment may take minutes."""
        if self.backlog.is_mongo_away:
            self._report(None)

    def _report(self, trouble: str | None) -> None:
        """Log when trouble begins and when it ends, and note it in the progress, from which the other workers read it."""
        if trouble and not self.backlog.waits_for:
            log.warning("drainer_waits", error=trouble[:300])
        elif self.backlog.waits_for and not trouble:
            log.info("drainer_works_again")
        self._progress.say(WAITS_FOR, (trouble or "")[:300])
