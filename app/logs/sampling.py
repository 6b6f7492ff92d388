"""Log lines that an anonymous client can cause at will: at most ALLOWED of one event in each PERIOD_S, so that nobody fills
the disk of the logs or hides another line among a million. The rest is counted, and the next line that is written carries the
count as `suppressed`.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

ALLOWED = 20  # lines of one event name in a period
PERIOD_S = 10.0


class SampledLog:
    """Wraps a logger for such events. An event name is one of our own words, never a client's: each has a counter."""

    def __init__(self, log: Any, allowed: int = ALLOWED, period_s: float = PERIOD_S, now: Callable[[], float] = time.monotonic):
        self._log = log
        self._allowed = allowed
        self._period_s = period_s
        self._now = now
        self._periods: dict[str, _Period] = {}

    def info(self, event: str, **fields: Any) -> None:
        self._write(self._log.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(self._log.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(self._log.error, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self._write(self._log.exception, event, fields)

    def suppress(self, event: str) -> None:
        """Counts a line that the caller has held back for a reason of its own."""
        self._period_of(event).suppressed += 1

    def admits(self, event: str) -> int | None:
        """How many lines of this event were held back since the last one, where another may be written; else None."""
        period = self._period_of(event)
        if period.written >= self._allowed:
            period.suppressed += 1
            return None
        period.written += 1
        suppressed, period.suppressed = period.suppressed, 0
        return suppressed

    def _write(self, write: Callable[..., None], event: str, fields: dict[str, Any]) -> None:
        suppressed = self.admits(event)
        if suppressed is not None:
            write(event, **({**fields, "suppressed": suppressed} if suppressed else fields))

    def _period_of(self, event: str) -> "_Period":
        now = self._now()
        period = self._periods.setdefault(event, _Period(now + self._period_s))
        if now >= period.ends_at:
            period.ends_at, period.written = now + self._period_s, 0
        return period


class SampledRecords(logging.Filter):
    """The same for the logger of a library, all its lines together."""

    def __init__(self):
        super().__init__()
        self._sample = SampledLog(None)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._sample.admits(record.name) is not None


class _Period:
    __slots__ = ("ends_at", "suppressed", "written")

    def __init__(self, ends_at: float):
        self.ends_at = ends_at
        self.written = 0
        self.suppressed = 0
