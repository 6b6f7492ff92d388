"""Moves the spool into MongoDB, as soon as MongoDB answers again and slower than live traffic (`pace`, `traffic`).

The promise: a segment is deleted only when MongoDB has acknowledged every event in it (or the line is kept in its
`.rejected` file) and no writer is left who could add another. Until then everything may end at any moment and be done
again: `_id` makes the second time a no-op. MongoDB may be put back to an earlier state meanwhile, so it is asked for events
before the offset (`missing_before`): where this process did not note the offset itself since MongoDB was last away, and before
a segment is deleted.

Every worker runs one of these; the one that holds the lock of the data directory moves, the others stand by and take
over within a second when it dies. Segments go oldest first and each in its order. One that cannot be read, or holds what
MongoDB takes neither now nor says never to, is left for the next round and does not block those behind it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from gevent.event import Event

from app.clock import Clock
from app.logs import get_logger
from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.storage.leader_lock import LeaderLock
from app.storage.segments.rejected import RejectedFile
from app.storage.segments.segment import lines_from, lock_to_read, started_at
from app.telemetry.drain.lost_events import missing_before
from app.telemetry.drain.pace import Pace
from app.telemetry.sinks import SinkRefused
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.chunks import Chunk, read_chunk
from app.telemetry.spool.event_lines import Unusable, decode, segments
from app.telemetry.spool.progress import PrefixDigest, Progress

log = get_logger(__name__)
LOCK, PROGRESS = ".drainer.lock", ".drainer.progress"
LOOK_AGAIN_S = 1.0
SAVE_EVERY_S = 1.0
AWAY = "MongoDB: "


class Drainer:
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
        self._spool = spool
        self._folder = spool.folder
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._pace = Pace(max_per_second)
        self._is_busy = is_busy
        self._lock = LeaderLock(spool.folder / LOCK)
        self._progress = Progress(spool.folder / PROGRESS, target)
        self._saved_at = 0.0
        self._sure: set[Path] = set()  # of these segments the offset is our own, and MongoDB was not away since
        self._redone: set[Path] = set()
        self._prefixes: dict[Path, PrefixDigest] = {}

    def run(self, stop: Event) -> None:
        """The background task; returns soon after `stop` is set."""
        try:
            wait_s = 0.0
            while not stop.wait(wait_s):
                wait_s = self._turn(stop)
        finally:
            self._progress.save()
            self._lock.release()

    def _turn(self, stop: Event) -> float:
        """One round over all segments where it is our duty; seconds until the next."""
        try:
            if not self._is_leader():
                return LOOK_AGAIN_S
            trouble = self._round(stop)
        except StorageUnavailable as error:
            trouble = f"{AWAY}{error}"
            self._sure.clear()
        except OSError as error:
            trouble = f"{self._folder}: {error.strerror}"
        self._say(trouble)
        self._progress.save()
        return self._pace.failed() if trouble else LOOK_AGAIN_S

    def _round(self, stop: Event) -> str | None:
        """What kept some segment from being drained, if anything did. Raises StorageUnavailable, OSError."""
        found, trouble = segments(self._folder), None
        self._progress.keep_only(found)
        self._prefixes = {path: prefix for path, prefix in self._prefixes.items() if path in found}
        for path in found:
            if not stop.is_set():
                trouble = self._drain_safely(path, stop) or trouble
        return trouble

    def _is_leader(self) -> bool:
        """What the one before us noted is read once, when the duty becomes ours."""
        if self._lock.is_held:
            return True
        if not self._lock.acquire():
            return False
        self._progress.load()
        self._sure.clear()
        log.info("drainer_is_leader", folder=str(self._folder))
        return True

    def _drain_safely(self, path: Path, stop: Event) -> str | None:
        """Why this segment has to wait for another round. Raises StorageUnavailable where all of them have to."""
        try:
            self._drain(path, stop)
        except SinkRefused as error:
            return f"{path.name}: {error}"
        except StorageUnavailable:
            raise
        except FileNotFoundError:
            return None  # somebody else was done with it
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        except Exception as error:  # one odd file must not end every new process that meets it
            log.exception("drainer_surprised", segment=path.name)
            return f"{path.name}: {error!r}"
        return None

    def _drain(self, path: Path, stop: Event) -> None:
        with open(path, "rb") as file:
            is_complete = lock_to_read(file.fileno())
            inode = os.fstat(file.fileno()).st_ino
            offset, rejected = self._progress.offset(path, inode), RejectedFile(path)
            if path not in self._sure and not (self._is_of_these_bytes(path, file) and self._is_there(file, offset, rejected)):
                offset = 0
                self._prefixes.pop(path, None)
            self._sure.add(path)
            while not stop.is_set():
                started = time.monotonic()
                chunk = read_chunk(file, offset, is_complete=is_complete, max_lines=self._pace.chunk)
                if chunk.end == offset:
                    if is_complete and not self._is_there(file, offset, rejected):
                        offset = 0
                        self._prefixes.pop(path, None)
                        continue
                    if is_complete:
                        self._finish(path)
                    return
                count = self._move(chunk, rejected)
                offset = chunk.end
                digest = self._prefixes.setdefault(path, PrefixDigest()).at(file.fileno(), offset)
                self._progress.note(path, inode, offset, digest)
                self._count(count)
                stop.wait(self._pace.worked(len(chunk.lines), time.monotonic() - started, self._is_busy()))

    def _is_of_these_bytes(self, path: Path, file: BinaryIO) -> bool:
        """False where the segment was written anew since its offset was noted."""
        done, prefix = self._progress.done(path), PrefixDigest()
        self._prefixes[path] = prefix
        return done is None or prefix.at(file.fileno(), done.offset) == done.digest

    def _is_there(self, file: BinaryIO, offset: int, rejected: RejectedFile) -> bool:
        """Each segment is begun anew once at most: what MongoDB acknowledged to us and lacks again was deleted there on purpose.
        Raises StorageUnavailable, OSError."""
        path = Path(file.name)
        missing = missing_before(file, offset, rejected, self._sink.known) if offset and path not in self._redone else 0
        if missing:
            log.warning(
                "drained_events_missing", segment=path.name, missing=missing, consequence="the segment is moved again from its start"
            )
            self._redone.add(path)
        return not missing

    def _move(self, chunk: Chunk, rejected: RejectedFile) -> dict[str, int]:
        refused = put(chunk, self._sink)
        if self._is_away():
            self._say(None)
        kept = rejected.add(chunk.unusable + refused)
        if kept:
            log.error("spool_lines_rejected", count=kept, file=str(rejected.path), reason=(chunk.unusable + refused)[0][1][:200])
        return {"drained": len(chunk.lines) - len(refused), "rejected": kept}

    def _count(self, count: dict[str, int]) -> None:
        for name, more in count.items():
            self._progress.count(name, more)
        self._metrics.spool_drained_events_total.inc(count["drained"])
        self._metrics.spool_rejected_lines_total.inc(count["rejected"])
        if not 0 <= time.monotonic() - self._saved_at < SAVE_EVERY_S:
            self._progress.save()
            self._saved_at = time.monotonic()

    def _finish(self, path: Path) -> None:
        """Everything is where it belongs, and the lock that we hold says that nobody adds to it."""
        self._spool.drop(path)
        self._progress.forget(path)
        self._sure.discard(path)
        self._redone.discard(path)
        self._prefixes.pop(path, None)

    def _say(self, trouble: str | None) -> None:
        """Once when it begins and once when it is over; and to the other workers, who are asked about it, too."""
        before = self._progress.state.get("waitsFor", "")
        if trouble and not before:
            log.warning("drainer_waits", error=trouble[:300])
        elif before and not trouble:
            log.info("drainer_works")
        self._progress.say("waitsFor", (trouble or "")[:300])

    # --- what others see of it

    def watch(self) -> None:
        """Now and then, in every worker: show the backlog, and end our own segment when it is not used any more."""
        backlog = self.backlog()
        if not self._is_away():
            self._spool.close_unused()
        self._metrics.spool_backlog_bytes.set(backlog["backlogBytes"])
        self._metrics.spool_oldest_age_seconds.set(backlog["oldestAgeMs"] / 1000)

    def _is_away(self) -> bool:
        return self._progress.state.get("waitsFor", "").startswith(AWAY)

    def backlog(self) -> dict[str, Any]:
        """The same from every worker, on duty or not: from the disk and from what the one on duty noted at most a second ago."""
        if not self._lock.is_held:
            self._progress.load()
        waiting = [(path, offset, left) for path, offset, left in map(self._left, segments(self._folder)) if left > 0]
        age = max(0, self._clock() - _first_time(*waiting[0][:2])) if waiting else 0
        return {
            "backlogBytes": sum(left for _, _, left in waiting),
            "backlogSegments": len(waiting),
            "oldestAgeMs": age,
            "drained": self._progress.state.get("drained", 0),
            "rejected": self._progress.state.get("rejected", 0),
        }

    def check(self) -> dict[str, Any]:
        """For health: the spool's own state, and `degraded` while something waits in it."""
        answer, backlog = self._spool.check(), self.backlog()
        if answer["state"] == "up" and backlog["backlogBytes"]:
            answer["state"] = "degraded"
        waits_for = self._progress.state.get("waitsFor")
        is_draining = backlog["backlogBytes"] > 0 and not waits_for
        return {**answer, **backlog, "draining": is_draining, **({"waitsFor": waits_for} if waits_for else {})}

    def _left(self, path: Path) -> tuple[Path, int, int]:
        try:
            found = path.stat()
        except FileNotFoundError:
            return path, 0, 0
        offset = self._progress.offset(path, found.st_ino)
        return path, offset, found.st_size - offset


def put(chunk: Chunk, sink: MongoSink) -> list[tuple[bytes, str]]:
    """Every document is in MongoDB when it returns, but for those that it will never take: their (line, reason). Raises
    StorageUnavailable, SinkRefused."""
    if not chunk.documents:
        return []
    refused = sink.insert(chunk.documents).refused
    return [(chunk.lines[index], reason) for index, reason in sorted(refused.items())]


def _first_time(path: Path, offset: int) -> int:
    """When the first event that waits there was accepted, in epoch milliseconds."""
    try:
        with open(path, "rb") as file:
            _, line = next(lines_from(file, offset, is_complete=False))
            return decode(line).created_at
    except (OSError, StopIteration, Unusable):
        return started_at(path)
