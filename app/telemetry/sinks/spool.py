"""Events in files: durable after one fsync, readable, bounded. The store where there is no MongoDB.

A repeated `eventId` is recognised among at least the last SPOOL_KNOWN_IDS of this process and of what it found at its
start; one that is older than that stands twice on disk and is still read, and later imported, once, because both have the
same `_id`.

Invariants for events that come several times at once: (1) of all writes of one id that are under way, in this process and where
this is the store in every process, exactly one is answered as new, if any is; (2) each answer follows a durable copy of the event.
So an id is reserved before the write. Another greenlet of this process waits for that write; another process (`id_reservations`)
writes a copy of its own.

Where there is MongoDB (`is_store` is False) this is a place of passage: nothing is deleted here but by the drainer.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gevent.event import Event

from app.clock import system_clock
from app.storage.disk import make_folder
from app.storage.retention_clock import RetentionClock
from app.storage.segments.rejected import REJECTED
from app.storage.segments.segment import has_writer, lock_alone, size_of, whole_lines
from app.storage.segments.writer import SegmentWriter
from app.telemetry.batch import KNOWN_ID_MARK, is_known_id
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page
from app.telemetry.shares.spool_usage import SpoolUsage
from app.telemetry.sinks import SinkShareFull, Written
from app.telemetry.sinks.id_reservations import IdReservations
from app.telemetry.sinks.recent_ids import RecentIds
from app.telemetry.spool.event_lines import KIND, Unusable, decode, encode, segments
from app.telemetry.spool.index import SpoolIndex

NEARLY_FULL = 0.9
REJECTED_PART = 8  # an eighth of SPOOL_MAX_BYTES, beside it, for what a healthy MongoDB refuses
FULL = 0.99
LITTLE_DISK_BYTES, NO_DISK_BYTES = 16_777_216, 65_536
REMEMBERED_BYTES = 67_108_864  # how far back ids, and apps that are not noted, are looked for at the start: half a second of reading
UNUSED_S = 1.0
HALF_MADE = (".events-", ".probe-", ".drainer.progress.")
LEFT_OVER_S = 3600
GONE = float("inf")  # when a file was written that is not there any more: nothing is older


class Lines(NamedTuple):
    """Events as they are written, and how many bytes of it each application has."""

    text: bytes
    sizes: dict[str, int]


class SpoolSink:
    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        known_ids: int,
        ttl_days: int,
        metrics,
        clock=system_clock,
        is_store: bool = True,
        app_share: float = 1.0,
        named_apps: Iterable[str] = (),
    ):
        self.folder = folder
        self._is_store = is_store
        self._max_bytes = max_bytes
        self._max_known = known_ids
        self._ttl_s = ttl_days * 86_400
        self._time = RetentionClock(folder / ".clock", clock)
        self._metrics = metrics
        self._clock = clock
        self._known = RecentIds(known_ids)
        self._rejected_bytes = 0
        self._reserved: set[str] = set()  # of the writes that are under way
        self._has_ended = Event()
        self._shared = IdReservations(folder, known_ids) if is_store and known_ids else None
        self._writer = SegmentWriter(folder, KIND, "SPOOL_MAX_BYTES", max_bytes=max_bytes, segment_bytes=segment_bytes, clock=clock)
        self._index = SpoolIndex(folder)
        self._usage = SpoolUsage(folder, KIND, max_bytes=max_bytes, share=app_share, named=named_apps)

    def open(self) -> None:
        """After the fork: measure what is there and, as the store, remember its newest ids."""
        make_folder(self.folder)
        self._writer.try_again()
        self.tend()
        self._usage.look(at_most_bytes=REMEMBERED_BYTES)
        if self._is_store:
            self._recall()

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises StorageUnavailable, and SinkShareFull."""
        fresh = self._fresh(events)
        while not self._reserved.isdisjoint(fresh):
            self._has_ended.wait()
            fresh = self._fresh(events)
        if fresh:
            self._write(fresh)
        return Written("spool", _known_places(events, fresh))

    def _fresh(self, events: list[StoredEvent]) -> dict[str, StoredEvent]:
        fresh = {event.id: event for event in events}  # two of one id: the later one
        for id_ in self._known.among(fresh):
            del fresh[id_]
        return fresh

    def _write(self, fresh: dict[str, StoredEvent]) -> None:
        """Leaves in `fresh` those that no other process has reserved."""
        lines, ids = _encoded(list(fresh.values())), [id_ for id_ in fresh if id_[0] == KNOWN_ID_MARK]
        if ids:
            self._write_reserved(lines, ids, fresh)
        else:
            self._append(lines)
        self._metrics.spool_events_total.inc(len(fresh))
        self._metrics.spool_bytes.set(self._writer.folder_bytes)

    def _write_reserved(self, lines: Lines, ids: list[str], fresh: dict[str, StoredEvent]) -> None:
        self._reserved.update(ids)
        try:
            taken = self._shared.reserve(ids) if self._shared else ()
            try:
                self._append(lines)
            except BaseException:
                if self._shared:
                    self._shared.give_back([id_ for id_ in ids if id_ not in taken])
                raise
            self._known.add(ids)
            for id_ in taken:
                del fresh[id_]
        finally:
            self._reserved.difference_update(ids)
            self._has_ended.set()  # wakes the callers that wait now
            self._has_ended.clear()

    def _append(self, lines: Lines) -> None:
        try:
            self._usage.reserve(lines.sizes)
        except SinkShareFull:
            self._metrics.telemetry_limited_total.labels("spool").inc()
            raise
        try:
            path = self._writer.append(lines.text)
        except BaseException:
            self._usage.release(lines.sizes)
            raise
        self._usage.note(path, lines.sizes)

    def refresh_usage(self) -> None:
        """Every second: of what each application has stored here."""
        self._usage.look()

    def may_keep_refused(self) -> bool:
        """False when the lines put aside have used up their share of the room."""
        return self._rejected_bytes < self._max_bytes // REJECTED_PART

    def find(self, query: EventQuery) -> Page:
        return self._index.find(query)

    def tend(self) -> None:
        """Called every few seconds: drops what is older than the TTL, and measures the folder. A segment goes when its every event
        is too old and no writer holds it; never where it waits for MongoDB. The lines put aside go as the events would have."""
        if self._ttl_s:
            self._drop_old([*(segments(self.folder) if self._is_store else ()), *self.folder.glob(f"*{REJECTED}")])
        self._sweep()
        self._measure()

    def _drop_old(self, paths: list[Path]) -> None:
        """The lock is held until the file is gone, so that no process adds to it meanwhile."""
        modified = {path: at for path, at in ((path, _modified(path)) for path in paths) if at != GONE}
        if not modified:
            return
        too_old = self._time.now(int(1000 * max(modified.values()))) / 1000 - self._ttl_s
        for path in [path for path, at in modified.items() if at < too_old]:
            with suppress(FileNotFoundError), open(path, "rb") as file:
                if lock_alone(file.fileno()) and _modified(path) < too_old:
                    self.drop(path)

    def drop(self, path: Path) -> None:
        """A segment that is not needed any more."""
        path.unlink(missing_ok=True)
        self._index.forget(path)
        self._usage.forget(path)

    def close_unused(self) -> None:
        """So that a segment which nobody adds to any more can be emptied and go. For when MongoDB is there: while it is away
        every quiet second would begin another file."""
        self._writer.close_unused(UNUSED_S)

    def close(self) -> None:
        self._writer.close()
        if self._shared:
            self._shared.close()
        self._usage.save()

    def check(self) -> dict[str, Any]:
        """`down` where nothing can be written; `degraded` before, when little of SPOOL_MAX_BYTES or of the disk is left."""
        if self._writer.last_error:
            self._writer.try_again()
        self._measure()
        used, trouble = self._writer.folder_bytes, self._writer.last_error
        place = self.folder if self.folder.exists() else self.folder.parent
        free = _free_bytes(place)
        taken = used / min(self._max_bytes, used + free + 1)
        if trouble is None and (taken > FULL or free < NO_DISK_BYTES or self._writer.lacks_room):
            trouble = f"{self.folder} is full"
        if trouble is None and not os.access(place, os.W_OK):
            trouble = f"{place} cannot be written to"
        full_apps = self._usage.full_parties()
        if trouble is None and self._usage.holds_back_all():
            trouble = f"every application in {self.folder} has used up its share of it (SPOOL_APP_SHARE)"
        is_tight = taken > NEARLY_FULL or free < LITTLE_DISK_BYTES or bool(full_apps) or self._usage.is_near_a_limit(NEARLY_FULL)
        state = "down" if trouble else "degraded" if is_tight else "up"
        details = {"bytes": used, "maxBytes": self._max_bytes, "segments": len(segments(self.folder))}
        if full_apps:
            details["appsAtTheirShare"] = full_apps
        return {"state": state, **details, **({"error": trouble} if trouble else {})}

    def _sweep(self) -> None:
        """What a process left half made when it was killed: files without a name of their own yet."""
        long_ago = self._clock() / 1000 - LEFT_OVER_S
        for path in self.folder.glob(".*"):
            if path.name.startswith(HALF_MADE) and _modified(path) < long_ago and not has_writer(path):
                path.unlink(missing_ok=True)

    def _measure(self) -> None:
        self._writer.measure()
        self._rejected_bytes = sum(size_of(path) for path in self.folder.glob(f"*{REJECTED}"))
        self._metrics.spool_bytes.set(self._writer.folder_bytes)

    def _recall(self) -> None:
        """The newest segments until there are enough ids in them, and of these the oldest first."""
        found: list[list[str]] = []
        looked_at = count = 0
        for path in reversed(segments(self.folder)):
            if count >= self._max_known or looked_at >= REMEMBERED_BYTES:
                break
            looked_at += size_of(path)
            found.append(list(_ids_in(path)))
            count += len(found[-1])
        for ids in reversed(found):
            self._known.add(ids)


def _encoded(events: list[StoredEvent]) -> Lines:
    apps = {event.app for event in events}
    if len(apps) == 1:
        text = encode(events)
        return Lines(text, dict.fromkeys(apps, len(text)))
    lines, sizes = [encode([event]) for event in events], dict.fromkeys(apps, 0)
    for event, line in zip(events, lines, strict=True):
        sizes[event.app] += len(line)
    return Lines(b"".join(lines), sizes)


def _known_places(events: list[StoredEvent], fresh: dict[str, StoredEvent]) -> list[int]:
    if len(fresh) == len(events):
        return []
    return [place for place, event in enumerate(events) if fresh.get(event.id) is not event]


def _ids_in(path: Path):
    for line in whole_lines(path):
        try:
            id_ = decode(line).id
        except Unusable:
            continue  # found and named by the import
        if is_known_id(id_):
            yield id_


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return GONE


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
