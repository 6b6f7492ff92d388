"""The time by which old data may be deleted. A wall clock that is wrong for a minute must not delete what years have gathered.

Invariant: nothing is deleted on the word of the clock alone. Trusted time never passes the clock; it begins at what was trusted
last, or at the newest data where nothing was; and from there it gains at most CATCH_UP times the time that has really passed by
a monotonic clock. So a clock that is 100 days ahead has to be wrong for four days of running before it costs anything, and a
server that was off for 100 days deletes what is too old four days late at most.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.clock import Clock
from app.storage.disk import private

CATCH_UP = 24


def advanced(trusted_ms: int, clock_ms: int, passed_ms: float) -> int:
    """Pure: the trusted time after so much has really passed, while the clock says `clock_ms`."""
    return min(clock_ms, trusted_ms + int(CATCH_UP * passed_ms))


class RetentionClock:
    """Kept in the file at `path`, for the next process. Not synced: losing it leads back to the newest data."""

    def __init__(self, path: Path, clock: Clock, monotonic: Callable[[], float] = time.monotonic):
        self._path = path
        self._clock = clock
        self._monotonic = monotonic
        self._trusted_ms: int | None = None
        self._looked_at = 0.0

    def now(self, newest_ms: int) -> int:
        """Epoch milliseconds. `newest_ms` is the time of the newest data, for a first start."""
        looked_at, self._looked_at = self._looked_at, self._monotonic()
        before, passed_s = self._trusted_ms, self._looked_at - looked_at
        if before is None:
            before, passed_s = self._saved() or newest_ms, 0
        self._trusted_ms = advanced(before, self._clock(), 1000 * passed_s)
        self._save()
        return self._trusted_ms

    def _saved(self) -> int | None:
        with suppress(OSError, ValueError):
            return int(self._path.read_text())
        return None

    def _save(self) -> None:
        with suppress(OSError), open(os.fspath(self._path), "w", opener=private) as file:
            file.write(str(self._trusted_ms))
