"""Where the importer sends its chunks: to MongoDB, or, for a dry run, nowhere."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import gevent

from app.storage.errors import StorageUnavailable
from app.telemetry.event import StoredEvent
from app.telemetry.sinks.mongo import Inserted, MongoSink
from app.telemetry.spool.chunks import Chunk

TIMEOUT_S = 30.0
WAITS_S = (0.5, 1, 2, 4, 8)  # between the attempts at one chunk


class Outcome(NamedTuple):
    """How many events of a chunk were stored before, and why MongoDB refuses others for ever, by their index."""

    known: int
    refused: dict[int, str]


class Destination(Protocol):
    """Takes a chunk; with `is_counted` its new events are added to the statistics."""

    def put(self, chunk: Chunk, is_counted: bool) -> Outcome:
        """Return when the chunk is stored or compared. Raises StorageUnavailable."""
        ...


class MongoDestination:
    """Stores chunks in MongoDB. `note` is called with the new events that are added to the statistics."""

    def __init__(self, sink: MongoSink, note: Callable[[list[StoredEvent]], None]):
        self._sink = sink
        self._note = note

    def put(self, chunk: Chunk, is_counted: bool) -> Outcome:
        """Store the chunk, with several attempts. Raises StorageUnavailable after the last one."""
        inserted = self._insert(chunk) if chunk.documents else Inserted([], {})
        if is_counted:
            not_new = {*inserted.duplicates, *inserted.refused}
            self._note([event for index, event in enumerate(chunk.events) if index not in not_new])
        return Outcome(len(inserted.duplicates), inserted.refused)

    def _insert(self, chunk: Chunk) -> Inserted:
        waits = iter(WAITS_S)
        while True:
            try:
                return self._sink.insert(chunk.documents, TIMEOUT_S)
            except StorageUnavailable:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise
                gevent.sleep(wait_s)


class DryRun:
    """Stores nothing, and compares with MongoDB if there is one."""

    def __init__(self, sink: MongoSink | None):
        self._sink = sink

    def put(self, chunk: Chunk, is_counted: bool) -> Outcome:
        """Count the events that MongoDB has. Raises StorageUnavailable."""
        ids = [event.id for event in chunk.events]
        return Outcome(self._sink.known(ids) if ids and self._sink is not None else 0, {})
