"""Events as the lines of the spool's files."""

from pathlib import Path

import msgspec

from app.spool import segment
from app.telemetry.event import StoredEvent
from app.telemetry.fields import MAX_MS

KIND = "events"
_encode = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(StoredEvent).decode


class Unusable(ValueError):
    """A whole line that is no event; the message says why."""


def segments(folder: Path) -> list[Path]:
    """Every segment, the oldest first."""
    return segment.segments(folder, KIND)


def encode(events: list[StoredEvent]) -> bytes:
    """One line each, the newlines included."""
    return _encode(events)


def decode(line: bytes) -> StoredEvent:
    """The event that was encoded. Raises Unusable."""
    try:
        event = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(str(error)) from None
    if not (0 <= event.ts <= MAX_MS and 0 <= event.created_at <= MAX_MS and 0 <= (event.raw_ts or 0) <= MAX_MS):
        raise Unusable("a time that is not between 1970 and 9999")
    return event
