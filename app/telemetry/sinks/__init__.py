"""Where events become durable. The port is one method, and every twin passes the same contract test:

    write(events) -> Written      every event is durable when it returns, but for the `refused` ones; writing one again changes nothing

`mongo` and `spool` are the real ones, `memory` is for tests, and `ladder` is itself a sink made of two others.
Those that hold events for reading also offer `find(query) -> Page` (see app/telemetry/query.py).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from app.telemetry.event import StoredEvent


class Written(NamedTuple):
    """`known` are the places in the list of the events that were stored already, `refused` says why the storage will never take
    the ones at these places; `storage` names the sink. What is refused is not saved."""

    storage: str
    known: Sequence[int] = ()
    refused: Mapping[int, str] = {}

    @property
    def duplicates(self) -> int:
        return len(self.known)


class Sink(Protocol):
    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkUnavailable or SinkFull; then some of the events may be durable, and all must be written again."""
        ...


class SinkUnavailable(Exception):
    """The storage does not answer, or answers that it cannot write now."""


class SinkRefused(SinkUnavailable):
    """The storage works, objects to some of these events, and may take them later."""


class SinkFull(Exception):
    """The storage works and has no room."""


class SinkShareFull(SinkFull):
    """The storage has room, and applications among these events have used up their share of it: `full` says so for each. Nothing
    was written; the events of the others may be written again."""

    def __init__(self, full: Mapping[str, str]):
        super().__init__("; ".join(full.values()))
        self.full = full
