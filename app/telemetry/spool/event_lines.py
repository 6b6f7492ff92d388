"""Events as the lines of the spool's files."""

import re
from pathlib import Path

import msgspec

from app.json_values import MAX_TIMESTAMP_MS
from app.storage.segments import segment
from app.telemetry.event import StoredEvent

KIND = "events"
OWN_NAME = re.compile(rf"{KIND}-\d{{13,}}-\d+-[0-9a-f]{{14,}}\.jsonl")  # as app.storage.segments.segment makes it
_encode = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(StoredEvent).decode


class Unusable(ValueError):
    """A whole line that is no event; the message says why."""


def segments(folder: Path) -> list[Path]:
    """Every segment, the oldest first."""
    return segment.segments(folder, KIND)


def is_segment(path: Path) -> bool:
    """True where a server wrote it, by its name, which stays with a copy; false for what a hand or another program made."""
    return OWN_NAME.fullmatch(path.name) is not None


def encode(events: list[StoredEvent]) -> bytes:
    """One line each, the newlines included."""
    return _encode(events)


def decode(line: bytes) -> StoredEvent:
    """The event that was encoded. Raises Unusable."""
    try:
        event = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(str(error)) from None
    latest = MAX_TIMESTAMP_MS
    if not (0 <= event.ts <= latest and 0 <= event.created_at <= latest and 0 <= (event.raw_ts or 0) <= latest):
        raise Unusable("a time that is not between 1970 and 9999")
    return event
