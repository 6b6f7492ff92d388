"""Marshmallow fields of telemetry's own: a moment in time, a name that may be a number, a JSON object that every store can hold."""

from typing import Any, ClassVar

import orjson
from marshmallow import ValidationError, fields

from app.json_values import MAX_INT64, MIN_INT64, is_number, is_whole_number, parse_timestamp, timestamp_mistake

EARLIEST_MS = 946_684_800_000  # 2000: what is before was measured by another clock, like performance.now(), or by one never set
MAX_DEPTH = 32
SHORT, LONG = 128, 256  # characters
MAX_PROPS_BYTES, MAX_USER_BYTES = 32_768, 8_192
BEYOND_64_BITS = "Must not have a whole number beyond 64 bits."
BYTES_A_VALUE = 2  # that each value of a JSON text takes at least, its comma included


class Documented(fields.Field):
    """A field whose type OpenAPI would not know; that it may be null is added where it may."""

    OPENAPI: ClassVar[dict[str, Any]] = {}

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "metadata": {**self.OPENAPI, **(kwargs.get("metadata") or {})}})


class Moment(Documented):
    """Epoch milliseconds or ISO 8601 (without an offset: UTC) -> epoch milliseconds, 1970 to 9999."""

    OPENAPI: ClassVar = {"type": ["number", "string"], "description": "Epoch milliseconds or ISO 8601, 1970 to 9999."}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> int:
        if (ms := parse_timestamp(value)) is None:
            raise ValidationError(timestamp_mistake(value))
        return ms


class Share(fields.Float):
    """A JSON number from 0 to 1; no text that could be read as one."""

    default_error_messages = {"invalid": "Must be a number from 0 to 1."}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> float:
        if not is_number(value) or not 0 <= value <= 1:
            raise self.make_error("invalid")
        return float(value)


class WholeNumber(fields.Integer):
    """A JSON number without a fraction; no text that could be read as one."""

    def _deserialize(self, value: Any, attr, data, **kwargs) -> int:
        if not is_whole_number(value):
            raise self.make_error("invalid")
        return value


class Identifier(Documented, fields.String):
    """A string, or a whole number taken as one: many applications number their users."""

    OPENAPI: ClassVar = {"type": ["string", "integer"]}

    def _deserialize(self, value: Any, attr, data, **kwargs) -> str:
        if is_whole_number(value):
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
            elif isinstance(item, int) and not MIN_INT64 <= item <= MAX_INT64:
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
