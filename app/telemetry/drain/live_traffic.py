"""Whether live events are arriving at any worker of this data directory, so that the one that drains rests for all of them.

All that the workers tell each other is the time of one empty file: whoever has taken a batch since it last looked touches
it. That needs no lock and no room on the disk, and a worker that is killed leaves nothing behind that somebody believes for
longer than FRESH_MS. Servers with other data directories are seen only by how slow they make MongoDB.
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
    """`ingest` is this worker's own: what is under way there is seen at once, and where the file fails it is all that is seen."""

    def __init__(self, path: Path, ingest: Ingest, clock: Clock):
        self._path = path
        self._ingest = ingest
        self._clock = clock
        self._taken = 0

    def look(self) -> None:
        """Every LOOK_EVERY_S, in every worker."""
        if self._ingest.in_flight or self._ingest.taken != self._taken:
            self._taken = self._ingest.taken
            with suppress(OSError):
                self._touch()

    def is_live(self) -> bool:
        if self._ingest.in_flight:
            return True
        with suppress(OSError):
            return 0 <= self._clock() - self._path.stat().st_mtime_ns // 1_000_000 < FRESH_MS
        return False

    def _touch(self) -> None:
        now_ns = self._clock() * 1_000_000
        self._path.touch(FILE_MODE)
        os.utime(self._path, ns=(now_ns, now_ns))
