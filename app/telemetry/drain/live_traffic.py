"""Tells the draining worker whether live events arrive at any worker of this data directory, so that it rests for all of them.

The workers share one empty file: a worker that accepted a batch since its last look touches the file. That needs no lock and no room
on the disk, and what a killed worker leaves there is out of date after FRESH_MS. Servers with other data directories are noticed
only by how slow they make MongoDB.
"""

import os
from contextlib import suppress
from pathlib import Path

from app.clock import Clock
from app.storage.disk import FILE_MODE
from app.telemetry.ingest import Ingest

LOOK_EVERY_S = 0.1
FRESH_MS = 250


class LiveTraffic:
    """`ingest` is this worker's own. Its batches are noticed at once, and also where the file cannot be read or written."""

    def __init__(self, path: Path, ingest: Ingest, clock: Clock):
        self._path = path
        self._ingest = ingest
        self._clock = clock
        self._taken_before = 0

    def look(self) -> None:
        """Run every LOOK_EVERY_S in every worker: touch the file if this worker takes events."""
        if self._ingest.in_flight or self._ingest.taken != self._taken_before:
            self._taken_before = self._ingest.taken
            with suppress(OSError):
                self._touch()

    def is_live(self) -> bool:
        """Whether a batch is under way here, or a worker touched the file less than FRESH_MS ago."""
        if self._ingest.in_flight:
            return True
        with suppress(OSError):
            return 0 <= self._clock() - self._path.stat().st_mtime_ns // 1_000_000 < FRESH_MS
        return False

    def _touch(self) -> None:
        now_ns = self._clock() * 1_000_000
        self._path.touch(FILE_MODE)
        os.utime(self._path, ns=(now_ns, now_ns))
