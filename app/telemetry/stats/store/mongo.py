"""Stores each bucket as a document in MongoDB. All workers add to the same documents by `$inc`.

A `$inc` that is sent twice counts twice. So a document notes in `by` the last delta that it has of each worker, and the filter of the
update matches only a document without this delta. If no document matches, the upsert tries an insert, and MongoDB refuses it if a document
has that `_id`: either the document has the delta already, or another worker has just made the document. A second update, without
upsert, adds the delta in the second case only.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import orjson
import pymongo
from mongoengine import DateTimeField, DictField, Document, IntField, StringField
from pymongo import UpdateOne, WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from app.json_values import to_datetime, to_ms
from app.logs import get_logger
from app.storage.errors import StorageUnavailable
from app.storage.mongo import answers_understood, driver_errors, durable_concern
from app.storage.mongo_errors import judge
from app.telemetry.stats.bucket import DAY_MS, LEVELS_MS, Bucket, Delta, widened
from app.telemetry.stats.store.mongo_size_limit import MAX_BYTES, MongoSizeLimit

log = get_logger(__name__)

READ_S = 20  # reading a long range may take longer than a write
FIELDS = {"_id": 0, "app": 1, "env": 1, "at": 1, "counts": 1, "failed": 1, "values": 1}


class RollupDocument(Document):
    """Names the collection and its fields; migrations_indexes/ makes the indexes. The names of events are keys of the inner documents,
    escaped by `_key`."""

    meta = {"collection": "telemetry_rollups", "auto_create_index": False, "id_field": "id"}

    id = StringField(primary_key=True)
    level = IntField(required=True)
    app = StringField(required=True)
    env = StringField()
    at = DateTimeField(required=True)
    created_at = DateTimeField(db_field="createdAt")
    updated_at = DateTimeField(db_field="updatedAt", required=True)
    by = DictField()
    counts = DictField()
    failed = DictField()
    values = DictField()


class MongoRollups:
    """Writes statistics as durably as events, since both are part of the same answer."""

    def __init__(self, database: Database, max_bytes: int = MAX_BYTES):
        self._database = database
        collection = database[RollupDocument._get_collection_name()]
        self._collection = collection.with_options(write_concern=WriteConcern(**durable_concern(collection)))
        self._size_limit = MongoSizeLimit(database, self._collection, max_bytes)

    def apply(self, delta: Delta) -> None:
        """Add a delta to its documents, each of which takes it once."""
        steps = [_step(bucket, level_ms, delta) for level_ms in LEVELS_MS for bucket in widened(delta.buckets, level_ms)]
        there_already = self._write([UpdateOne(wanted, change, upsert=True) for wanted, change in steps])
        if there_already:
            self._write([UpdateOne(*steps[index]) for index in there_already])

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> Iterator[Bucket]:
        """Yield the buckets of the range."""
        wanted = {"app": app, "level": level_ms, "at": {"$gte": to_datetime(since), "$lt": to_datetime(until)}}
        if env is not None:
            wanted["env"] = env
        with driver_errors():
            self._database.command("ping")  # fails at once where MongoDB does not answer, and not after READ_S
            with pymongo.timeout(READ_S):
                for document in self._collection.find(wanted, FIELDS):
                    yield _bucket(document)

    def apps(self, at_most: int) -> list[str]:
        """Return the applications, read from their days, which are few documents."""
        group = {"$group": {"_id": "$app", "since": {"$min": "$createdAt"}}}
        steps: list[dict[str, Any]] = [{"$match": {"level": DAY_MS}}, group, {"$sort": {"since": 1, "_id": 1}}, {"$limit": at_most}]
        with driver_errors():
            self._database.command("ping")
            with pymongo.timeout(READ_S):
                return [row["_id"] for row in self._collection.aggregate(steps)]

    def check(self) -> dict[str, Any]:
        """Return `degraded` for an hour after documents were deleted to make room."""
        return self._size_limit.check()

    def tend(self) -> None:
        """Keep the collection within its maximum size. The TTL index of MongoDB deletes what is old."""
        with suppress(PyMongoError):  # the next `apply` fails for the same reason, and reports it
            self._size_limit.make_room()

    def _write(self, updates: list[UpdateOne]) -> list[int]:
        """Return the indexes of the updates whose document existed already. An update that MongoDB refuses, such as one of a document that
        is too large, is logged and does not stop the others."""
        with driver_errors(), answers_understood():
            problems = self._problems(updates)
            found = judge(problems, self._collection, lambda index: updates[index]._filter["_id"])
        for index, reason in (found.refused | found.unforeseen).items():
            log.error("rollup_refused", id=updates[index]._filter["_id"][:300], error=reason[:300])
        return found.there

    def _problems(self, updates: list[UpdateOne]) -> list[dict[str, Any]]:
        try:
            self._collection.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            if error.details.get("writeConcernErrors"):
                raise StorageUnavailable("the write concern was not met") from error
            return error.details.get("writeErrors", [])
        return []


def _step(bucket: Bucket, level_ms: int, delta: Delta) -> tuple[dict, dict]:
    """Return the filter and the update for one bucket of a delta."""
    guard = f"by.{delta.worker}"
    made_at = to_datetime(delta.made_at)
    on_insert: dict[str, Any] = {"level": level_ms, "app": bucket.app, "at": to_datetime(bucket.at), "createdAt": made_at}
    if bucket.env is not None:
        on_insert["env"] = bucket.env
    id_ = orjson.dumps([level_ms, bucket.at, bucket.app, bucket.env]).decode()
    return {"_id": id_, guard: {"$not": {"$gte": delta.seq}}}, {
        "$inc": _increments(bucket),
        "$set": {guard: delta.seq, "updatedAt": made_at},
        "$setOnInsert": on_insert,
    }


def _increments(bucket: Bucket) -> dict[str, int]:
    counts = {f"counts.{type_}.{_key(name)}": n for type_, names in bucket.counts.items() for name, n in names.items()}
    failed = {f"failed.{_key(name)}": n for name, n in bucket.failed.items()}
    values = {
        f"values.{type_}.{_key(name)}.{bin_}": n
        for type_, sketches in bucket.values.items()
        for name, sketch in sketches.items()
        for bin_, n in sketch.items()
    }
    return counts | failed | values


def _key(name: str) -> str:
    """Return a name as a key of a document: without the characters that have a meaning in a path."""
    return name.replace("%", "%25").replace(".", "%2E").replace("$", "%24").replace("\0", "%00")


def _bucket(document: dict[str, Any]) -> Bucket:
    at: datetime = document["at"]
    counts = {type_: _named(names) for type_, names in document.get("counts", {}).items()}
    values = {
        type_: {name: {int(bin_): n for bin_, n in sketch.items()} for name, sketch in _named(sketches).items()}
        for type_, sketches in document.get("values", {}).items()
    }
    return Bucket(document["app"], document.get("env"), to_ms(at), counts, _named(document.get("failed", {})), values)


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    return {unquote(key) if "%" in key else key: value for key, value in fields.items()}
