"""Events in MongoDB: one unordered insert for all who wait, and the pages that are read back.

An `_id` that is there already is a duplicate, not an error. Anything else that MongoDB says against a write means that
it cannot be relied on now: everybody who shared it goes down the ladder, and the `_id`s keep an event from being
stored twice.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, ClassVar

from bson.raw_bson import RawBSONDocument
from msgspec import Struct
from pymongo.database import Database
from pymongo.errors import PyMongoError

from app.clock import to_datetime
from app.telemetry.document import TelemetryEvent
from app.telemetry.event import StoredEvent
from app.telemetry.group_commit import GroupCommit
from app.telemetry.query import EventQuery, Page, page_from
from app.telemetry.schemas import EVENT_TYPES
from app.telemetry.sinks import SinkUnavailable, Written
from app.telemetry.sinks.bson import STORED_NAMES, decode_event, encode_events

DUPLICATE_KEY = 11000
NEWEST_FIRST = [("ts", -1), ("_id", -1)]
LANES = 2  # commands under way at once; who comes while all are taken shares the next one
ENOUGH_BYTES_A_COMMAND = 8_000_000  # of the 48 MB that MongoDB takes; a batch that comes after begins another


class Encoded(Struct):
    """A finished document, as the driver's encoder knows one: by the type marker of bson's RawBSONDocument, whose
    constructor reads through the document and costs half as much as encoding it."""

    _type_marker: ClassVar[int] = RawBSONDocument._type_marker
    raw: bytes


class MongoSink:
    def __init__(self, database: Database):
        self._database = database
        self._collection = database[TelemetryEvent._get_collection_name()]
        self._inserts = GroupCommit(self._insert, lanes=LANES, enough=ENOUGH_BYTES_A_COMMAND)

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkUnavailable."""
        documents = encode_events(events)
        return Written("mongo", self._inserts.submit(documents, sum(map(len, documents))))

    def find(self, query: EventQuery) -> Page:
        """Raises SinkUnavailable."""
        try:
            found = self._collection.find(_filter(query)).sort(NEWEST_FIRST).limit(query.limit + 1)
            return page_from([decode_event(document) for document in found], query.limit)
        except PyMongoError as error:
            raise _unavailable(error) from error

    def _insert(self, batches: list[list[bytes]]) -> list[int]:
        """The duplicates of each batch. One plain command: the driver's bulk writer would decode what is encoded already.
        A command has no retry of its own; the ladder has."""
        concern = self._collection.write_concern
        options = {"writeConcern": concern.document} if concern.acknowledged and concern.document else {}
        documents = [Encoded(document) for batch in batches for document in batch]
        try:
            answer = self._database.command({"insert": self._collection.name, "documents": documents, "ordered": False, **options})
        except PyMongoError as error:
            raise _unavailable(error) from error
        if "writeConcernError" in answer:
            raise SinkUnavailable(answer["writeConcernError"].get("errmsg", "the write concern was not met"))
        return _duplicates(answer.get("writeErrors", ()), batches)


def _duplicates(problems: Iterable[dict[str, Any]], batches: list[list[bytes]]) -> list[int]:
    ends = list(accumulate(map(len, batches)))
    counts = [0] * len(batches)
    for problem in problems:
        if problem.get("code") != DUPLICATE_KEY:
            raise SinkUnavailable(problem.get("errmsg", "a document was refused"))
        counts[bisect_right(ends, problem["index"])] += 1
    return counts


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
