"""Events in MongoDB: one unordered insert for all who wait, and the pages that are read back.

An `_id` that is there already is a duplicate, not an error. Anything else that MongoDB says against a write means that
it cannot be relied on now: everybody who shared it goes down the ladder, and the `_id`s keep an event from being
stored twice.
"""

from bisect import bisect_right
from typing import Any

from bson.raw_bson import RawBSONDocument
from gevent.lock import Semaphore
from pymongo.database import Database
from pymongo.errors import PyMongoError

from app.clock import to_datetime
from app.telemetry.document import TelemetryEvent
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page, page_from
from app.telemetry.schemas import EVENT_TYPES
from app.telemetry.sinks import SinkUnavailable, Written
from app.telemetry.sinks.bson import STORED_NAMES, decode_event, encode_events

DUPLICATE_KEY = 11000
NEWEST_FIRST = [("ts", -1), ("_id", -1)]
LANES = 4  # commands under way at once; who comes while all are taken shares the next one
ENOUGH_BYTES_A_COMMAND = 8_000_000  # of the 48 MB that MongoDB takes; a batch that comes after begins another


class _Group:
    """The callers that share one command: each with its documents, and afterwards its duplicates."""

    def __init__(self):
        self.documents: list[RawBSONDocument] = []
        self.size = 0
        self.ends: list[int] = []  # the position after each caller's last document
        self.duplicates: list[int] = []
        self.error: SinkUnavailable | None = None
        self.is_done = False

    def join(self, documents: list[bytes]) -> int:
        """The caller's place in `duplicates`."""
        self.documents += map(RawBSONDocument, documents)
        self.size += sum(map(len, documents))
        self.ends.append(len(self.documents))
        self.duplicates.append(0)
        return len(self.ends) - 1


class MongoSink:
    def __init__(self, database: Database):
        self._database = database
        self._collection = database[TelemetryEvent._get_collection_name()]
        self._next = _Group()
        self._lanes = Semaphore(LANES)

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkUnavailable."""
        documents = encode_events(events)
        if self._next.size > ENOUGH_BYTES_A_COMMAND:
            self._next = _Group()
        group = self._next
        place = group.join(documents)
        with self._lanes:
            if not group.is_done:
                self._commit(group)
        if group.error is not None:
            raise group.error
        return Written("mongo", group.duplicates[place])

    def find(self, query: EventQuery) -> Page:
        """Raises SinkUnavailable."""
        try:
            found = self._collection.find(_filter(query)).sort(NEWEST_FIRST).limit(query.limit + 1)
            return page_from([decode_event(document) for document in found], query.limit)
        except PyMongoError as error:
            raise _unavailable(error) from error

    def _commit(self, group: _Group) -> None:
        if self._next is group:
            self._next = _Group()
        try:
            self._insert(group)
        except SinkUnavailable as error:
            group.error = error
        except PyMongoError as error:
            group.error = _unavailable(error)
        finally:
            group.is_done = True
            group.documents = []

    def _insert(self, group: _Group) -> None:
        """One plain command: the driver's bulk writer would decode what is encoded already. It has no retry of its own,
        which the ladder has."""
        concern = self._collection.write_concern
        options = {"writeConcern": concern.document} if concern.acknowledged and concern.document else {}
        answer = self._database.command({"insert": self._collection.name, "documents": group.documents, "ordered": False, **options})
        if "writeConcernError" in answer:
            raise SinkUnavailable(answer["writeConcernError"].get("errmsg", "the write concern was not met"))
        for problem in answer.get("writeErrors", ()):
            if problem.get("code") != DUPLICATE_KEY:
                raise SinkUnavailable(problem.get("errmsg", "a document was refused"))
            group.duplicates[bisect_right(group.ends, problem["index"])] += 1


def _unavailable(error: PyMongoError) -> SinkUnavailable:
    return SinkUnavailable(f"{type(error).__name__}: {error}")


def _filter(query: EventQuery) -> dict[str, Any]:
    """A `type` is always given where an `app` is: so (app, type, ts) serves the order, merged over the few types."""
    wanted: dict[str, Any] = {STORED_NAMES[name]: value for name, value in query.exact.items()}
    if "app" in wanted and "type" not in wanted and "name" not in wanted:
        wanted["type"] = {"$in": list(EVENT_TYPES)}
    bounds = {"$gte": query.since, "$lt": query.until}
    if query.after is not None:
        ms, event_id = query.after
        bounds["$lte"] = ms
        ts = to_datetime(ms)
        wanted["$or"] = [{"ts": {"$lt": ts}}, {"ts": ts, "_id": {"$lt": event_id}}]
    bounds = {operator: to_datetime(ms) for operator, ms in bounds.items() if ms is not None}
    if bounds:
        wanted["ts"] = bounds
    return wanted
