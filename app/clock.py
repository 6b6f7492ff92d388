"""The one place that asks what time it is. Cores take `now` as a value; faces and background work call this.

The system's clock is for dates: it is set, forwards and backwards, while a server runs. How long something takes, rests or
stays fresh is measured by `uptime`.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

Clock = Callable[[], int]

EPOCH = datetime(1970, 1, 1)
MAX_ISO_LENGTH = 40
_LEAP_SECOND = re.compile(r"(.*\d{2}:\d{2}:)60((?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?)")


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


class EpochUnit(NamedTuple):
    """A unit in which programs count the time since 1970, where it is not milliseconds: its numbers of the years 2001 to 2286 are
    those from `first` to `first` * 10, and cannot be meant as milliseconds (as which they would be 1970, or beyond the year 33000)."""

    name: str
    first: int
    a_second: int


EPOCH_UNITS = (EpochUnit("seconds", 10**9, 1), EpochUnit("microseconds", 10**15, 10**6), EpochUnit("nanoseconds", 10**18, 10**9))


def epoch_unit(value: float) -> EpochUnit | None:
    """The unit of a number that is clearly a time of ours and not in milliseconds."""
    return next((unit for unit in EPOCH_UNITS if unit.first <= value < unit.first * 10), None)


def from_iso(text: str) -> int | None:
    """Epoch milliseconds of an ISO 8601 time (UTC where it names no offset), or None where it is none. A lower-case `z` and a leap
    second (RFC 3339, sections 5.6 and 5.7), which is the first of the next minute, are taken, too."""
    if len(text) > MAX_ISO_LENGTH:
        return None
    if text.endswith("z"):
        text = f"{text[:-1]}Z"
    leap = _LEAP_SECOND.fullmatch(text)
    try:
        return to_ms(datetime.fromisoformat(f"{leap[1]}59{leap[2]}")) + 1000 if leap else to_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
