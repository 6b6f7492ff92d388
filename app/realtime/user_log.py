"""Limits the log lines that clients cause: a connect, a subscribe, a rejected frame.

Each user has a share of them, so that one user's lines do not displace another's. All users together have a limit, so that the
logs do not fill the disk. The next line of the same event carries the number of suppressed lines, as `suppressed`.
"""

from typing import Any

from app.logs.sampling import SampledLog
from app.realtime.buckets import MemoryBuckets, Rate

USER_RATE = Rate.of("5/second", 300)  # a page that reconnects with all its topics stays below the burst
ALL_USERS = 1000  # lines of one event within PERIOD_S
PERIOD_S = 10.0


class UserLog:
    """A logger with a rate per user and one for all users."""

    def __init__(self, log: Any):
        self._log = SampledLog(log, ALL_USERS, PERIOD_S)
        self._shares = MemoryBuckets(USER_RATE)

    def info(self, event: str, user: str, now: int, **fields: Any) -> None:
        """Log the event, or count it as suppressed if the user is over the rate."""
        if self._shares.take(user, now):
            self._log.suppress(event)
        else:
            self._log.info(event, user=user, **fields)
