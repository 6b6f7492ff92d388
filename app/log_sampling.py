"""Log lines that an anonymous client can cause at will: at most ALLOWED of one event in each PERIOD_S, so that nobody fills
the disk of the logs or hides another line among a million. The rest is counted, and the next line that is written carries the
count as `suppressed`.
"""

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

    def _write(self, write: Callable[..., None], event: str, fields: dict[str, Any]) -> None:
        now = self._now()
        period = self._periods.setdefault(event, _Period(now + self._period_s))
        if now >= period.ends_at:
            period.ends_at, period.written = now + self._period_s, 0
        if period.written >= self._allowed:
            period.suppressed += 1
            return
        period.written += 1
        if period.suppressed:
            fields, period.suppressed = {**fields, "suppressed": period.suppressed}, 0
        write(event, **fields)


class _Period:
    __slots__ = ("ends_at", "suppressed", "written")

    def __init__(self, ends_at: float):
        self.ends_at = ends_at
        self.written = 0
        self.suppressed = 0
