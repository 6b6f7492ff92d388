"""Cells in MongoDB, one document each, all workers adding to the same ones by `$inc`.

A `$inc` that is sent twice counts twice, so a document remembers in `by` which delta of each worker it has. The guard is in
the filter of the update, and so holds for that document in the same step. Where the filter finds nothing the upsert tries
an insert, which the `_id` refuses if the document exists: either the delta is in it already, or another worker had made it
a moment before. An update without upsert settles which.
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

READ_S = 20  # a long range takes longer than a write may
WANTED = {"_id": 0, "app": 1, "env": 1, "at": 1, "counts": 1, "failed": 1, "values": 1}


class RollupDocument(Document):
    """The record of collection and fields; the indexes are made by migrations_indexes/. Names are keys of the inner
    documents, written as `_key` writes them."""

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
    """Writes as durably as the events are written, since both say what was answered."""

    def __init__(self, database: Database, max_bytes: int = MAX_BYTES):
        self._database = database
        collection = database[RollupDocument._get_collection_name()]
        self._collection = collection.with_options(write_concern=WriteConcern(**durable_concern(collection)))
        self._room = MongoSizeLimit(database, self._collection, max_bytes)

    def apply(self, delta: Delta) -> None:
        steps = [_step(bucket, level_ms, delta) for level_ms in LEVELS_MS for bucket in widened(delta.buckets, level_ms)]
        there_already = self._write([UpdateOne(wanted, change, upsert=True) for wanted, change in steps])
        if there_already:
            self._write([UpdateOne(*steps[index]) for index in there_already])

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> Iterator[Bucket]:
        wanted = {"app": app, "level": level_ms, "at": {"$gte": to_datetime(since), "$lt": to_datetime(until)}}
        if env is not None:
            wanted["env"] = env
        with driver_errors():
            self._database.command("ping")  # a server that is not there is not waited for as long as a long answer is
            with pymongo.timeout(READ_S):
                for document in self._collection.find(wanted, WANTED):
                    yield _bucket(document)

    def apps(self, at_most: int) -> list[str]:
        """By their days, which are few."""
        group = {"$group": {"_id": "$app", "since": {"$min": "$createdAt"}}}
        steps = [{"$match": {"level": DAY_MS}}, group, {"$sort": {"since": 1, "_id": 1}}, {"$limit": at_most}]
        with driver_errors():
            self._database.command("ping")
            with pymongo.timeout(READ_S):
                return [row["_id"] for row in self._collection.aggregate(steps)]

    def check(self) -> dict[str, Any]:
        return self._room.check()

    def tend(self) -> None:
        """Every minute: keep the collection within its bound. MongoDB's TTL index removes what is old."""
        with suppress(PyMongoError):  # the next `apply` meets the same trouble, and reports it
            self._room.make()

    def _write(self, updates: list[UpdateOne]) -> list[int]:
        """The indexes of those whose document was there already. What MongoDB will not take, such as a document that has grown too
        large, is logged and must not hold up the others."""
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
    guard = f"by.{delta.worker}"
    place: dict[str, Any] = {"level": level_ms, "app": bucket.app, "at": to_datetime(bucket.at), "createdAt": to_datetime(delta.made_at)}
    if bucket.env is not None:
        place["env"] = bucket.env
    id_ = orjson.dumps([level_ms, bucket.at, bucket.app, bucket.env]).decode()
    return {"_id": id_, guard: {"$not": {"$gte": delta.seq}}}, {
        "$inc": _increments(bucket),
        "$set": {guard: delta.seq, "updatedAt": to_datetime(delta.made_at)},
        "$setOnInsert": place,
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
    """A name as a field of a document: without what has a meaning in a path."""
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
