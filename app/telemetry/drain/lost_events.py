"""Checks whether MongoDB still has the events before an offset of a segment.

A database that was restored from a backup, emptied, or replaced by another one at the same address lacks events that were moved into
it. A segment is moved in order, so the missing events are one stretch of it. The check asks for the last events before the offset,
and for some that are spread over the whole segment before it.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from app.storage.segments.rejected import RejectedFile
from app.telemetry.spool.event_lines import Unusable, decode

LAST_LINES, SPREAD_LINES = 50, 50
LAST_BYTES = 1_048_576


def missing_before(file: BinaryIO, offset: int, rejected: RejectedFile, known: Callable[[list[str]], int]) -> int:
    """Return how many of the events that it asks for are missing. `known` counts those of the ids that MongoDB has."""
    lines = rejected.without([*_last_lines(file, offset), *_spread_lines(file, offset)])
    ids = {event_id for line in lines if (event_id := _id_of(line)) is not None}
    return len(ids) - known(list(ids)) if ids else 0


def _last_lines(file: BinaryIO, offset: int) -> list[bytes]:
    start = max(0, offset - LAST_BYTES)
    file.seek(start)
    lines = file.read(offset - start).splitlines(keepends=True)
    return lines[1 if start else 0 :][-LAST_LINES:]  # the first may be half a line


def _spread_lines(file: BinaryIO, offset: int) -> Iterator[bytes]:
    for number in range(SPREAD_LINES):
        start = offset * number // SPREAD_LINES
        file.seek(start)
        if start:
            file.readline()
        line = file.readline()
        if file.tell() <= offset:
            yield line


def _id_of(line: bytes) -> str | None:
    try:
        return decode(line).id
    except Unusable:
        return None
