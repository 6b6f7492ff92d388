"""Reads lines for moving them: what of a stretch of a file MongoDB can take, what it cannot and why, and where the next begins.

Stricter than `decode`, since what is sent to MongoDB and refused there would be met again and again.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from app.serving.fairness import TimeSlice
from app.storage.segments.segment import MAX_LINE_BYTES, lines_from
from app.telemetry.event import StoredEvent
from app.telemetry.fields import why_not_storable
from app.telemetry.sinks.bson import encode_or_reason
from app.telemetry.spool.event_lines import Unusable, decode

MAX_CHUNK_BYTES = 500_000  # what is decoded at once is what the collector of cycles looks at in one piece
EVENTS_A_PIECE = 20  # that are encoded in one call of the driver


class Chunk(NamedTuple):
    """`documents[i]` is made of `events[i]`, and that of `lines[i]`; `unusable` are (line, reason); `end` is where
    the next begins."""

    documents: list[bytes]
    lines: list[bytes]
    events: list[StoredEvent]
    unusable: list[tuple[bytes, str]]
    end: int


def read_chunk(file: BinaryIO, start: int, *, is_complete: bool, max_lines: int) -> Chunk:
    """From an offset that is a line's beginning; nothing more is there where `end` is `start`. A file that is not
    `is_complete` still has a writer, who may be in the middle of its last line."""
    events, unusable, end, time_slice = [], [], start, TimeSlice.of_loop_iteration()
    for count, (after, line) in enumerate(lines_from(file, start, is_complete=is_complete), 1):
        end = after
        try:
            if line.strip():
                events.append((line, usable(line)))
        except Unusable as error:
            unusable.append((line, str(error)))
        time_slice.yield_if_over()  # a server drains beside its requests
        if count >= max_lines or end - start >= MAX_CHUNK_BYTES:
            break
    return chunk_of(events, unusable, end, time_slice)


def chunk_of(events: list[tuple[bytes, StoredEvent]], unusable: list[tuple[bytes, str]], end: int, time_slice: TimeSlice) -> Chunk:
    """`events` are the lines with what they hold, `unusable` the others with the reason."""
    chunk = Chunk([], [], [], list(unusable), end)
    for (line, event), document in zip(events, _encoded([event for _, event in events], time_slice), strict=True):
        if isinstance(document, bytes):
            chunk.documents.append(document)
            chunk.lines.append(line)
            chunk.events.append(event)
        else:
            chunk.unusable.append((line, document))
    return chunk


def _encoded(events: list[StoredEvent], time_slice: TimeSlice) -> Iterator[bytes | str]:
    for first in range(0, len(events), EVENTS_A_PIECE):
        yield from encode_or_reason(events[first : first + EVENTS_A_PIECE])
        time_slice.yield_if_over()


def usable(line: bytes) -> StoredEvent:
    """The event. Raises Unusable with the reason."""
    if not line.endswith(b"\n") and len(line) >= MAX_LINE_BYTES:
        raise Unusable(f"longer than the {MAX_LINE_BYTES} bytes that an event may have")
    try:
        event = decode(line)
    except Unusable as error:
        raise Unusable(str(error) if line.endswith(b"\n") else f"cut off at the end of the file: {error}") from None
    if (reason := why_unusable(event)) is not None:
        raise Unusable(reason)
    return event


def why_unusable(event: StoredEvent) -> str | None:
    """The reason why MongoDB could not hold it, or None."""
    return why_not_storable(event.props) or (why_not_storable(event.user) if event.user else None)
