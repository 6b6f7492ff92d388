"""Where events become durable. The port is one method, and every twin passes the same contract test:

    write(events) -> Written      every event is durable when it returns, but for the `refused` ones; writing one again changes nothing

`mongo` and `spool` are the real ones, `memory` is for tests, and `ladder` is itself a sink made of two others.
Those that hold events for reading also offer `find(query) -> Page` (see app/telemetry/query.py).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from app.storage.errors import StorageUnavailable
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
        """Raises StorageUnavailable; then some of the events may be durable, and all must be written again."""
        ...


class SinkRefused(StorageUnavailable):
    """The storage works, objects to some of these events, and may take them later."""


class SinkShareFull(StorageUnavailable):
    """The storage has room, and applications among these events have used up their share of it: `full` says so for each. Nothing
    was written; the events of the others may be written again."""

    def __init__(self, full: Mapping[str, str]):
        sentence = "; ".join(full.values())
        super().__init__(sentence, message=sentence, code="storage_full")
        self.full = full
