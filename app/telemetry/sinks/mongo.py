"""Events in MongoDB: one unordered insert for all who wait, and the pages that are read back.

An `_id` that is there already is a duplicate, not an error. A document that MongoDB will never take costs only the batch
it came in. Anything else that is said against a write means that MongoDB cannot be relied on now: everybody who shared
the command goes down the ladder, and the `_id`s keep an event from being stored twice.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from pymongo.database import Database
from pymongo.errors import PyMongoError

from app.clock import to_datetime
from app.group_commit import GroupCommit, Interrupted
from app.mongo import DUPLICATE_KEY, answers_understood
from app.telemetry.document import TelemetryEvent
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page, page_from
from app.telemetry.schemas import EVENT_TYPES
from app.telemetry.sinks import SinkRefused, SinkUnavailable, Written, wire
from app.telemetry.sinks.bson import STORED_NAMES, decode_event, encode_events

# What MongoDB says of one document and will say again: a validator, a size, a value or a name it does not take.
NEVER_TAKEN = {2, 9, 14, 22, 52, 55, 56, 57, 121, 10334, 17280}
# What it says of a document and means of itself: no primary, shutting down, out of disk or of quota, too late, not allowed.
UNWELL = {6, 7, 13, 18, 50, 64, 89, 91, 189, 262, 8000, 9001, 10107, 11600, 11602, 13435, 13436, 14031}
# Acknowledged means: in the journal, and where there are several servers by most of them. MONGO_URI may say otherwise.
DURABLE = {"w": "majority", "j": True}
NEWEST_FIRST = [("ts", -1), ("_id", -1)]
LANES = 4  # commands under way at once; who comes while all are taken shares the next one
ENOUGH_BYTES_A_COMMAND = 8_000_000  # of the 48 MB that MongoDB takes; a batch that comes after begins another


class Inserted(NamedTuple):
    """Which documents were there already, and why some will never be taken; both by their index."""

    duplicates: list[int]
    refused: dict[int, str]


class MongoSink:
    def __init__(self, database: Database, send=wire.send):
        self._send = partial(send, database)
        self._collection = database[TelemetryEvent._get_collection_name()]
        self._inserts = GroupCommit(self._insert_all, lanes=LANES, enough=ENOUGH_BYTES_A_COMMAND)
        self._failed_at = 0.0  # monotonic

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkUnavailable, and SinkRefused where only these events are the trouble."""
        documents = encode_events(events)
        try:
            result = self._inserts.submit((time.monotonic(), documents), sum(map(len, documents)))
        except Interrupted as error:
            raise SinkUnavailable(str(error)) from error
        if isinstance(result, SinkRefused):
            raise result
        return Written("mongo", result)

    def find(self, query: EventQuery) -> Page:
        """Raises SinkUnavailable."""
        try:
            found = self._collection.find(_filter(query)).sort(NEWEST_FIRST).limit(query.limit + 1)
            return page_from([decode_event(document) for document in found], query.limit)
        except PyMongoError as error:
            raise _unavailable(error) from error

    def insert(self, documents: list[bytes], timeout_s: float | None = None) -> Inserted:
        """One plain command, without a retry of its own; who calls has one. `timeout_s` is for who has more patience than a
        request. Raises SinkUnavailable, and SinkRefused for an objection that nobody foresaw."""
        concern = self._collection.write_concern
        command = {
            "insert": self._collection.name,
            "ordered": False,
            "writeConcern": {**DURABLE, **concern.document} if concern.acknowledged else DURABLE,
        }
        try:
            with answers_understood():
                answer = self._send(command, documents, timeout_s)
                if "writeConcernError" in answer:
                    raise SinkUnavailable(answer["writeConcernError"].get("errmsg", "the write concern was not met"))
                return _inserted(answer.get("writeErrors", ()))
        except PyMongoError as error:
            raise _unavailable(error) from error

    def known(self, ids: list[str]) -> int:
        """How many of these are there. Raises SinkUnavailable."""
        try:
            return self._collection.count_documents({"_id": {"$in": ids}})
        except PyMongoError as error:
            raise _unavailable(error) from error

    def _insert_all(self, batches: list[tuple[float, list[bytes]]]) -> list[list[int] | SinkRefused]:
        """The places of each batch's duplicates. Who waited while MongoDB failed goes down the ladder at once, not after a timeout
        of his own: so a request waits for one timeout at most."""
        if batches[0][0] < self._failed_at:
            raise SinkUnavailable("it did not take what came before")
        try:
            inserted = self.insert([document for _, batch in batches for document in batch])
        except SinkRefused:
            raise
        except SinkUnavailable:
            self._failed_at = time.monotonic()
            raise
        return _shares(inserted, [len(batch) for _, batch in batches])


def _inserted(problems: Iterable[dict[str, Any]]) -> Inserted:
    inserted = Inserted([], {})
    for problem in problems:
        code, reason = problem.get("code"), problem.get("errmsg", "a document was refused")
        if code == DUPLICATE_KEY:
            inserted.duplicates.append(problem["index"])
        elif code in NEVER_TAKEN:
            inserted.refused[problem["index"]] = f"MongoDB: {reason}"
        else:
            raise (SinkUnavailable if code in UNWELL else SinkRefused)(f"{reason} (code {code})")
    return inserted


def _shares(inserted: Inserted, sizes: list[int]) -> list[list[int] | SinkRefused]:
    """What of it concerns each batch: the places of its duplicates, or why it is refused."""
    shares: list[list[int] | SinkRefused] = [[] for _ in sizes]
    if inserted.duplicates or inserted.refused:
        ends = list(accumulate(sizes))
        for index in inserted.duplicates:
            batch = bisect_right(ends, index)
            shares[batch].append(index - ends[batch] + sizes[batch])
        for index, reason in inserted.refused.items():
            shares[bisect_right(ends, index)] = SinkRefused(reason)
    return shares


def _unavailable(error: PyMongoError) -> SinkUnavailable:
    reason = str(error).partition(" (configured timeouts")[0]  # what follows is our own settings
    return SinkUnavailable(f"{type(error).__name__}: {reason}")


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
