"""Marshmallow fields of telemetry's own: a moment in time, a name that may be a number, a JSON object that every store can hold."""

import math
from typing import Any, ClassVar

import orjson
from marshmallow import ValidationError, fields

from app.clock import EpochUnit, epoch_unit, from_iso

MAX_MS = 253_402_300_799_999  # the last millisecond of the year 9999, where datetimes end
EARLIEST_MS = 946_684_800_000  # 2000: what is before was measured by another clock, like performance.now(), or by one never set
MAX_DEPTH = 32
SHORT, LONG = 128, 256  # characters
MAX_PROPS_BYTES, MAX_USER_BYTES = 32_768, 8_192
BEYOND_64_BITS = "Must not have a whole number beyond 64 bits."
BYTES_A_VALUE = 2  # that each value of a JSON text takes at least, its comma included
INT64 = 2**63


class Documented(fields.Field):
    """A field whose type OpenAPI would not know; that it may be null is added where it may."""

    OPENAPI: ClassVar[dict[str, Any]] = {}

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "metadata": {**self.OPENAPI, **(kwargs.get("metadata") or {})}})


class Moment(Documented):
    """Epoch milliseconds or ISO 8601 (without an offset: UTC) -> epoch milliseconds, 1970 to 9999."""

    OPENAPI: ClassVar = {"type": ["number", "string"], "description": "Epoch milliseconds or ISO 8601, 1970 to 9999."}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> int:
        ms = to_moment(value)
        if ms is None and (unit := unit_of(value)) is not None:
            raise ValidationError(f"Must be epoch milliseconds; this looks like {unit.name}.")
        if ms is None:
            raise ValidationError("Must be epoch milliseconds or an ISO 8601 time between 1970 and 9999.")
        return ms


def to_moment(value: Any) -> int | None:
    """The milliseconds, or None where it is no such time, or a number that clearly counts another unit."""
    if isinstance(value, str):
        ms = from_iso(value)
    elif is_number(value) and epoch_unit(value) is None:
        ms = int(value)
    else:
        return None
    return ms if ms is not None and 0 <= ms <= MAX_MS else None


def unit_of(value: Any) -> EpochUnit | None:
    return epoch_unit(value) if is_number(value) else None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Share(fields.Float):
    """A JSON number from 0 to 1; no text that could be read as one."""

    default_error_messages = {"invalid": "Must be a number from 0 to 1."}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self.make_error("invalid")
        return float(value)


class WholeNumber(fields.Integer):
    """A JSON number without a fraction; no text that could be read as one."""

    def _deserialize(self, value: Any, attr, data, **kwargs) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid")
        return value


class Identifier(Documented, fields.String):
    """A string, or a whole number taken as one: many applications number their users."""

    OPENAPI: ClassVar = {"type": ["string", "integer"]}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return super()._deserialize(value, attr, data, **kwargs)


class StorableObject(Documented):
    """A JSON object within BSON's limits, checked here so that what is answered as saved can always be moved to MongoDB:
    at most `max_bytes` as JSON, 32 levels deep, whole numbers within 64 bits, no NUL in a key."""

    OPENAPI: ClassVar = {"type": "object"}

    def __init__(self, *, max_bytes: int, **kwargs):
        super().__init__(metadata={"description": f"At most {max_bytes} bytes as JSON."}, **kwargs)
        self.max_bytes = max_bytes

    def _deserialize(self, value: Any, attr, data, **kwargs) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object.")
        if (reason := why_not_kept(value, self.max_bytes)) is not None:
            raise ValidationError(reason)
        return value


def why_not_kept(value: dict[str, Any], max_bytes: int) -> str | None:
    """The reason why an event cannot have this object, or None. What has more values than so many bytes can hold is not walked to
    its end: half a million bytes of `1,` would take a tenth of a second."""
    too_large = f"Must be at most {max_bytes} bytes as JSON."
    try:
        reason = why_not_storable(value, max_values=max_bytes // BYTES_A_VALUE)
    except TooManyValues:
        return too_large
    return reason or (too_large if len(orjson.dumps(value)) > max_bytes else None)


class TooManyValues(Exception):
    """There are more than were to be looked at."""


def why_not_storable(value: Any, max_values: int | None = None) -> str | None:
    """The reason why BSON could not hold this JSON value, or None. Goes through it level by level; raises TooManyValues."""
    level, depth, count, is_beyond = [value], 0, 0, False
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if any("\0" in key for key in item):
                    return "Must not have a NUL character in a key."
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and not -INT64 <= item < INT64:
                is_beyond = True  # said last: whoever wants to help has then nothing else to look for
                continue
            else:
                continue
            if depth > MAX_DEPTH:
                return f"Must not be nested deeper than {MAX_DEPTH} levels."
        count += len(inner)
        if max_values is not None and count > max_values:
            raise TooManyValues
        level = inner
    return BEYOND_64_BITS if is_beyond else None
