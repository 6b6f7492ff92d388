"""Events in MongoDB: one unordered insert for all who wait, and the pages that are read back.

An event whose `_id` is stored already is a duplicate, not an error. An event that MongoDB will never take is reported as
refused and costs no other event. An objection that nobody foresaw costs only the batch it came in. Anything else means that
MongoDB cannot be relied on now: all batches of the command go down the ladder, and the `_id`s keep an event from being stored
twice. Which objection is which is decided in app/storage/mongo_errors.py alone.
"""

import time
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from bson.raw_bson import RawBSONDocument
from pymongo.database import Database
from pymongo.errors import OperationFailure

from app.json_values import MAX_TIMESTAMP_MS, to_datetime
from app.storage.errors import StorageUnavailable
from app.storage.group_commit import GroupCommit, Interrupted
from app.storage.mongo import answers_understood, driver_errors, durable_concern
from app.storage.mongo_errors import Objections, judge
from app.telemetry.event import StoredEvent
from app.telemetry.event_types import EVENT_TYPES
from app.telemetry.extended_json import RAW, id_from_text
from app.telemetry.query import EventQuery, Page, page_from
from app.telemetry.sinks import SinkRefused, Written, op_msg
from app.telemetry.sinks.bson import STORED_NAMES, decode_event, encode_events
from app.telemetry.sinks.document import TelemetryEvent

MAY_NOT_LIST = (13, 59, 115)  # the login may not, or the server cannot
NEWEST_FIRST = [("ts", -1), ("_id", -1)]
LANES = 4  # commands under way at once; who comes while all are taken shares the next one
ENOUGH_BYTES_A_COMMAND = 8_000_000  # of the 48 MB that MongoDB takes; a batch that comes after begins another


class Inserted(NamedTuple):
    """Which documents were there already, and why some will never be taken; both by their index."""

    duplicates: list[int]
    refused: dict[int, str]


class MongoSink:
    def __init__(self, database: Database, send=op_msg.send):
        self._send = partial(send, database)
        self._collection = database[TelemetryEvent._get_collection_name()]
        self._inserts = GroupCommit(self._insert_all, lanes=LANES, enough=ENOUGH_BYTES_A_COMMAND)
        self._failed_at = 0.0  # monotonic

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises StorageUnavailable, and SinkRefused where MongoDB objects to one of these events and nobody knows for how long."""
        documents = encode_events(events)
        try:
            found = self._inserts.submit((time.monotonic(), documents), sum(map(len, documents)))
        except Interrupted as error:
            raise StorageUnavailable(str(error)) from error
        _raise_unforeseen(found)
        return Written("mongo", found.there, found.refused)

    def find(self, query: EventQuery) -> Page:
        """Documents of other programs included, where they have a date in `ts`: without one they have no place in a page.
        Raises StorageUnavailable."""
        with driver_errors(), answers_understood():
            found = self._collection.with_options(RAW).find(_filter(query)).sort(NEWEST_FIRST).limit(query.limit + 1)
            return page_from([decode_event(document) for document in found], query.limit)

    def insert(self, documents: Sequence[bytes], timeout_s: float | None = None) -> Inserted:
        """One plain command, without a retry of its own: the caller has one. `timeout_s` is for callers with more patience than a
        request has. Raises StorageUnavailable, and SinkRefused for an objection that nobody foresaw."""
        found = self._insert(documents, timeout_s)
        _raise_unforeseen(found)
        return Inserted(found.there, found.refused)

    def _insert(self, documents: Sequence[bytes], timeout_s: float | None = None) -> Objections:
        command = {
            "insert": self._collection.name,
            "ordered": False,
            "writeConcern": durable_concern(self._collection),
        }
        with driver_errors(), answers_understood():
            answer = self._send(command, documents, timeout_s)
            if "writeConcernError" in answer:
                raise StorageUnavailable(answer["writeConcernError"].get("errmsg", "the write concern was not met"))
            return judge(answer.get("writeErrors", ()), self._collection, lambda index: RawBSONDocument(documents[index])["_id"])

    def known(self, ids: list[str]) -> int:
        """How many of these are there. Raises StorageUnavailable."""
        with driver_errors():
            return self._collection.count_documents({"_id": {"$in": [id_from_text(id_) for id_ in ids]}})

    def collection_id(self) -> str:
        """Another one after the collection was dropped and made again; empty where there is none, or the server does not tell.
        Raises StorageUnavailable."""
        with driver_errors():
            try:
                found = list(self._collection.database.list_collections(filter={"name": self._collection.name}))
            except OperationFailure as error:
                if error.code in MAY_NOT_LIST:
                    return ""
                raise
        return str(found[0].get("info", {}).get("uuid", "")) if found else ""

    def holds(self, collection_id: str, id_: str) -> bool:
        """Whether it is still this collection, and has this event. Raises StorageUnavailable."""
        return self.collection_id() == collection_id and (not id_ or self.known([id_]) == 1)

    def _insert_all(self, batches: list[tuple[float, list[bytes]]]) -> list[Objections]:
        """What concerns each batch. A batch that waited while MongoDB failed goes down the ladder at once, not after a timeout
        of its own: so a request waits for one timeout at most."""
        if batches[0][0] < self._failed_at:
            raise StorageUnavailable("it did not take what came before")
        try:
            found = self._insert([document for _, batch in batches for document in batch])
        except StorageUnavailable:
            self._failed_at = time.monotonic()
            raise
        return _shares(found, [len(batch) for _, batch in batches])


def _raise_unforeseen(found: Objections) -> None:
    if found.unforeseen:
        raise SinkRefused(next(iter(found.unforeseen.values())))


def _shares(found: Objections, sizes: list[int]) -> list[Objections]:
    """What of it concerns each batch, by the places in that batch."""
    if not any(found):
        return [found] * len(sizes)
    shares, ends = [Objections([], {}, {}) for _ in sizes], list(accumulate(sizes))
    for index in found.there:
        batch = bisect_right(ends, index)
        shares[batch].there.append(index - ends[batch] + sizes[batch])
    for kind in ("refused", "unforeseen"):
        for index, reason in getattr(found, kind).items():
            batch = bisect_right(ends, index)
            getattr(shares[batch], kind)[index - ends[batch] + sizes[batch]] = reason
    return shares


def _filter(query: EventQuery) -> dict[str, Any]:
    """A `type` is always given where an `app` is: so (app, type, ts) serves the order, merged over the few types. The bounds of
    `ts` find dates only, and of these only what a cursor can name."""
    wanted: dict[str, Any] = {STORED_NAMES[name]: value for name, value in query.exact.items()}
    if "app" in wanted and "type" not in wanted and "name" not in wanted:
        wanted["type"] = {"$in": list(EVENT_TYPES)}
    since, until = to_datetime(query.since or 0), query.until
    latest = {"$lte": to_datetime(MAX_TIMESTAMP_MS)} if until is None else {"$lt": to_datetime(until)}
    wanted["ts"] = {"$gte": since, **latest, "$not": {"$type": "array"}}
    if query.after is not None:
        ms, id_ = query.after
        ts = to_datetime(ms)
        wanted["ts"]["$lte"] = ts
        # `$expr` compares across types, as the sort does: the `_id` of another program may be no text
        wanted["$or"] = [{"ts": {"$lt": ts}}, {"ts": ts, "$expr": {"$lt": ["$_id", {"$literal": id_from_text(id_)}]}}]
    return wanted
