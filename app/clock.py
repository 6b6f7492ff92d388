"""The only place that reads a clock. Cores take `now` as a value; routes, handlers and background tasks call these functions.

Timestamps come from the system clock, which can be set forwards and backwards while a server runs. Durations, timeouts and
the age of a cache are measured with `uptime`.
"""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> int:
    """Return epoch milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def uptime() -> int:
    """Return milliseconds of a monotonic clock, for durations. Its zero is arbitrary and differs between machines."""
    return time.monotonic_ns() // 1_000_000
