"""The one place that asks what time it is. Cores take `now` as a value; faces and background work call this.

The system's clock is for dates: it is set, forwards and backwards, while a server runs. How long something takes, rests or
stays fresh is measured by `uptime`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]

EPOCH = datetime(1970, 1, 1)


def system_clock() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def uptime() -> int:
    """Milliseconds of a clock that nobody sets, for durations. It says nothing about the time, nor to another machine."""
    return time.monotonic_ns() // 1_000_000


def to_datetime(ms: int) -> datetime:
    """A naive UTC datetime, the form that BSON encodes fastest. Valid for the years 1 to 9999."""
    return EPOCH + timedelta(milliseconds=ms)


def to_ms(moment: datetime) -> int:
    """Milliseconds of an aware datetime, or of a naive one read as UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - EPOCH) // timedelta(milliseconds=1)


def iso(ms: int) -> str:
    """`2026-01-02T03:04:05.006Z`, as JavaScript's toISOString writes it."""
    return to_datetime(ms).isoformat(timespec="milliseconds") + "Z"
