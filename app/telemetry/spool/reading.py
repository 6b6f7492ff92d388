"""Reads lines for moving them: what of a stretch of a file MongoDB can take, what it cannot and why, and where the next begins.

Stricter than `decode`, since what is sent to MongoDB and refused there would be met again and again.
"""

from typing import BinaryIO, NamedTuple

from app.spool.segment import MAX_LINE_BYTES, lines_from
from app.telemetry.event import StoredEvent
from app.telemetry.fields import why_not_storable
from app.telemetry.sinks.bson import encode_or_reason
from app.telemetry.spool.segment import Unusable, decode

MAX_CHUNK_BYTES = 4_000_000


class Chunk(NamedTuple):
    """`documents[i]` is made of `lines[i]`; `unusable` are (line, reason); `end` is the offset at which the next begins."""

    documents: list[bytes]
    lines: list[bytes]
    unusable: list[tuple[bytes, str]]
    end: int


def read_chunk(file: BinaryIO, start: int, *, is_complete: bool, max_lines: int) -> Chunk:
    """From an offset that is a line's beginning; nothing more is there where `end` is `start`. A file that is not
    `is_complete` still has a writer, who may be in the middle of its last line."""
    chunk, events, end = Chunk([], [], [], start), [], start
    for count, (after, line) in enumerate(lines_from(file, start, is_complete=is_complete), 1):
        end = after
        if line.strip():
            _judge(line, events, chunk)
        if count >= max_lines or end - start >= MAX_CHUNK_BYTES:
            break
    for (line, _), document in zip(events, encode_or_reason([event for _, event in events]), strict=True):
        if isinstance(document, bytes):
            chunk.documents.append(document)
            chunk.lines.append(line)
        else:
            chunk.unusable.append((line, document))
    return chunk._replace(end=end)


def _judge(line: bytes, events: list[tuple[bytes, StoredEvent]], chunk: Chunk) -> None:
    try:
        events.append((line, usable(line)))
    except Unusable as error:
        chunk.unusable.append((line, str(error)))


def usable(line: bytes) -> StoredEvent:
    """The event. Raises Unusable with the reason."""
    if not line.endswith(b"\n") and len(line) >= MAX_LINE_BYTES:
        raise Unusable(f"longer than the {MAX_LINE_BYTES} bytes that an event may have")
    try:
        event = decode(line)
    except Unusable as error:
        raise Unusable(str(error) if line.endswith(b"\n") else f"cut off at the end of the file: {error}") from None
    reason = why_not_storable(event.props) or (event.user and why_not_storable(event.user))
    if reason:
        raise Unusable(reason)
    return event
