"""Reads lines for moving them: what of a stretch of a file MongoDB can take, what it cannot and why, and where the next begins.

Stricter than `decode`, since what is sent to MongoDB and refused there would be met again and again.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from app.serving.turns import Turn
from app.spool.segment import MAX_LINE_BYTES, lines_from
from app.telemetry.event import StoredEvent
from app.telemetry.fields import why_not_storable
from app.telemetry.sinks.bson import encode_or_reason
from app.telemetry.spool.segment import Unusable, decode

MAX_CHUNK_BYTES = 500_000  # what is decoded at once is what the collector of cycles looks at in one piece
EVENTS_A_PIECE = 20  # that are encoded in one call of the driver
ReadLine = Callable[[bytes, int], StoredEvent]


class Chunk(NamedTuple):
    """`documents[i]` is made of `events[i]`, and that of `lines[i]`; `unusable` are (line, reason); `end` is where
    the next begins."""

    documents: list[bytes]
    lines: list[bytes]
    events: list[StoredEvent]
    unusable: list[tuple[bytes, str]]
    end: int


def read_chunk(file: BinaryIO, start: int, *, is_complete: bool, max_lines: int, read_line: ReadLine | None = None) -> Chunk:
    """From an offset that is a line's beginning; nothing more is there where `end` is `start`. A file that is not
    `is_complete` still has a writer, who may be in the middle of its last line. `read_line` is for files with other lines
    than the spool's; it is told the offset, too, and raises Unusable."""
    read_line = read_line or _read_own_line
    chunk, events, end, turn = Chunk([], [], [], [], start), [], start, Turn.of_the_round()
    for count, (after, line) in enumerate(lines_from(file, start, is_complete=is_complete), 1):
        end = after
        if line.strip():
            _judge(line, after - len(line), read_line, events, chunk)
        turn.check()  # a server drains beside its requests
        if count >= max_lines or end - start >= MAX_CHUNK_BYTES:
            break
    for (line, event), document in zip(events, _encoded([event for _, event in events], turn), strict=True):
        if isinstance(document, bytes):
            chunk.documents.append(document)
            chunk.lines.append(line)
            chunk.events.append(event)
        else:
            chunk.unusable.append((line, document))
    return chunk._replace(end=end)


def _encoded(events: list[StoredEvent], turn: Turn) -> Iterator[bytes | str]:
    for first in range(0, len(events), EVENTS_A_PIECE):
        yield from encode_or_reason(events[first : first + EVENTS_A_PIECE])
        turn.check()


def _judge(line: bytes, offset: int, read_line: ReadLine, events: list[tuple[bytes, StoredEvent]], chunk: Chunk) -> None:
    try:
        events.append((line, read_line(line, offset)))
    except Unusable as error:
        chunk.unusable.append((line, str(error)))


def _read_own_line(line: bytes, offset: int) -> StoredEvent:
    return usable(line)


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
