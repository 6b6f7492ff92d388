"""Whether MongoDB still has what stands before an offset of a segment.

A database that was restored from a backup, emptied, or replaced by another one under the same address has forgotten events
that were moved into it since. A segment is moved in order, so what is missing is a stretch of it. The last events before the
offset are asked for, and some that are spread over all before them.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from app.storage.segments.rejected import RejectedFile
from app.telemetry.spool.event_lines import Unusable, decode

LAST_LINES, SPREAD_LINES = 50, 50
LAST_BYTES = 1_048_576


def missing_before(file: BinaryIO, offset: int, rejected: RejectedFile, known: Callable[[list[str]], int]) -> int:
    """How many of these events are not there. `known` counts the ids that are."""
    lines = rejected.without([*_last_lines(file, offset), *_spread_lines(file, offset)])
    ids = {event_id for line in lines if (event_id := _id_of(line)) is not None}
    return len(ids) - known(list(ids)) if ids else 0


def _last_lines(file: BinaryIO, offset: int) -> list[bytes]:
    start = max(0, offset - LAST_BYTES)
    file.seek(start)
    lines = file.read(offset - start).splitlines(keepends=True)
    return lines[1 if start else 0 :][-LAST_LINES:]  # the first may be half a line


def _spread_lines(file: BinaryIO, offset: int) -> Iterator[bytes]:
    for place in range(SPREAD_LINES):
        start = offset * place // SPREAD_LINES
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
