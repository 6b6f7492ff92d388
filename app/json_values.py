"""Timestamps and numbers in JSON: which values are accepted, their limits, and how a timestamp is rendered. Pure.

Inside the process a timestamp is a whole number of epoch milliseconds, UTC (`ms`). A client may send epoch milliseconds or
ISO 8601. `app/clock.py` reads the current time.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeGuard

MAX_SAFE_INTEGER = 2**53 - 1  # JavaScript's Number.MAX_SAFE_INTEGER: larger integers lose digits in a browser
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1  # the integers that BSON holds
MAX_TIMESTAMP_MS = 253_402_300_799_999  # the last millisecond of the year 9999, where Python's datetime ends

_EPOCH = datetime(1970, 1, 1)
_SURELY_MS = 10**10  # up to the year 9999, no other unit has numbers of this size
_MAX_ISO_LENGTH = 40
_LEAP_SECOND = re.compile(r"(.*\d{2}:\d{2}:)60((?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?)")


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether the value is a finite JSON number. A bool, which Python counts as an int, is none."""
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def is_whole_number(value: Any) -> TypeGuard[int]:
    """Whether the value is a JSON number without a fraction. Neither a bool nor 5.0 is one."""
    return type(value) is int


def is_timestamp(value: Any) -> TypeGuard[int]:
    """Whether the value is whole epoch milliseconds between the years 1970 and 9999."""
    return is_whole_number(value) and 0 <= value <= MAX_TIMESTAMP_MS


class EpochUnit(NamedTuple):
    """A unit other than milliseconds in which programs count the time since 1970.

    The numbers from `first` to `first` * 10 are the years 2001 to 2286 in this unit. None of them can be meant as milliseconds:
    they would be in 1970, or after the year 33000.
    """

    name: str
    first: int
    per_second: int

    def to_ms(self, value: float) -> int:
        """Convert a number of this unit to epoch milliseconds."""
        return int(value * 1000 // self.per_second)


EPOCH_UNITS = (EpochUnit("seconds", 10**9, 1), EpochUnit("microseconds", 10**15, 10**6), EpochUnit("nanoseconds", 10**18, 10**9))


def epoch_unit(value: Any) -> EpochUnit | None:
    """Return the unit of a number that is clearly a current time and not in milliseconds, else None."""
    return next((unit for unit in EPOCH_UNITS if unit.first <= value < unit.first * 10), None) if is_number(value) else None


def parse_timestamp(value: Any) -> int | None:
    """Return the epoch milliseconds of a number of milliseconds or an ISO 8601 text.

    Returns None for every other value, for a number that clearly counts another unit, and outside the years 1970 to 9999.
    """
    if type(value) is int and _SURELY_MS <= value <= MAX_TIMESTAMP_MS:
        return value  # the usual case, ten times faster than the checks below
    if isinstance(value, str):
        ms = from_iso(value)
    elif is_number(value) and epoch_unit(value) is None:
        ms = int(value)
    else:
        return None
    return ms if ms is not None and 0 <= ms <= MAX_TIMESTAMP_MS else None


def timestamp_mistake(value: Any) -> str:
    """Return the error sentence for a value that `parse_timestamp` does not accept."""
    if (unit := epoch_unit(value)) is not None:
        return f"Must be epoch milliseconds; this looks like {unit.name}: {unit.to_ms(value)} in milliseconds."
    return "Must be epoch milliseconds or an ISO 8601 time between 1970 and 9999."


def from_iso(text: str) -> int | None:
    """Return the epoch milliseconds of an ISO 8601 time, or None if the text is none. A time without an offset is UTC.

    Also accepts a lower-case `z`, and a leap second as the first second of the next minute (RFC 3339, sections 5.6 and 5.7).
    """
    if len(text) > _MAX_ISO_LENGTH:
        return None
    if text.endswith("z"):
        text = f"{text[:-1]}Z"
    leap = _LEAP_SECOND.fullmatch(text)
    try:
        return to_ms(datetime.fromisoformat(f"{leap[1]}59{leap[2]}")) + 1000 if leap else to_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def to_iso(ms: int) -> str:
    """Return `2026-01-02T03:04:05.006Z`, the form of JavaScript's toISOString."""
    return to_datetime(ms).isoformat(timespec="milliseconds") + "Z"


def to_datetime(ms: int) -> datetime:
    """Return a naive UTC datetime, the form that BSON encodes fastest. Valid for the years 1 to 9999."""
    return _EPOCH + timedelta(milliseconds=ms)


def to_ms(moment: datetime) -> int:
    """Return the epoch milliseconds of an aware datetime, or of a naive one read as UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
