"""Keeps the statistics in MongoDB within TELEMETRY_ROLLUPS_MAX_BYTES: deletes the oldest minutes of the application that has to lose
buckets (`eviction`), as in the file.

MongoDB reports the size of a collection with a delay. So that size only tells when to add up the sizes of all documents.
"""

import time
from collections.abc import Callable
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.database import Database

from app.json_values import to_ms
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.telemetry.stats.store.eviction import FREED_SHARE, Stored, evict

sampled = SampledLog(get_logger(__name__))

MAX_BYTES = 536_870_912
LOOK_EVERY_S = 60.0
ADD_UP_TIMEOUT_S = 30.0  # for the whole collection; it is rare, and no request waits for it
DOCUMENTS_AT_ONCE = 200
FULL_FOR_S = 3600.0  # how long health reports that documents were deleted


class MongoSizeLimit:
    """`now` is in seconds of a monotonic clock."""

    def __init__(self, database: Database, collection: Collection, max_bytes: int, now: Callable[[], float] = time.monotonic):
        self._database = database
        self._collection = collection
        self._max_bytes = max_bytes
        self._now = now
        self._look_at = self._full_until = 0.0

    def check(self) -> dict[str, Any]:
        """Return the state for health: `degraded` for FULL_FOR_S after documents were deleted."""
        if self._now() < self._full_until:
            error = "The collection is full (TELEMETRY_ROLLUPS_MAX_BYTES): the oldest minutes of the largest app are deleted."
            return {"state": "degraded", "error": error}
        return {"state": "up"}

    def make_room(self) -> int:
        """Return how many documents were deleted. Looks at the size once a minute. Raises PyMongoError."""
        if self._now() < self._look_at:
            return 0
        self._look_at = self._now() + LOOK_EVERY_S
        if self._database.command("collStats", self._collection.name).get("size", 0) <= self._max_bytes:
            return 0
        apps = self._apps()
        too_many = sum(stored.size for stored in apps.values()) - self._max_bytes
        return self._drop(apps, too_many + self._max_bytes // FREED_SHARE) if too_many > 0 else 0

    def _apps(self) -> dict[str, Stored]:
        group = {"_id": "$app", "size": {"$sum": {"$bsonSize": "$$ROOT"}}, "since": {"$min": "$createdAt"}}
        with pymongo.timeout(ADD_UP_TIMEOUT_S):
            rows = list(self._collection.aggregate([{"$group": group}]))
        return {row["_id"]: Stored(row["size"], to_ms(row["since"]) if row["since"] else 0) for row in rows}

    def _drop(self, apps: dict[str, Stored], wanted: int) -> int:
        freed = 0

        def drop_oldest(app: str) -> tuple[int, int]:
            nonlocal freed
            count, size = self._drop_oldest(app)
            freed += size
            return count, size

        dropped = evict(apps, drop_oldest, lambda: freed >= wanted)
        self._full_until = self._now() + FULL_FOR_S
        count, most_of = sum(dropped.values()), max(dropped, key=lambda app: dropped[app], default=None)
        sampled.warning("rollups_full", max_bytes=self._max_bytes, buckets_dropped=count, most_of=most_of)
        return count

    def _drop_oldest(self, app: str) -> tuple[int, int]:
        """Return how many documents were deleted, and their bytes."""
        wanted: list[dict[str, Any]] = [{"$match": {"app": app}}, {"$sort": {"level": 1, "at": 1}}, {"$limit": DOCUMENTS_AT_ONCE}]
        rows = list(self._collection.aggregate([*wanted, {"$project": {"size": {"$bsonSize": "$$ROOT"}}}]))
        if rows:
            self._collection.delete_many({"_id": {"$in": [row["_id"] for row in rows]}})
        return len(rows), sum(row["size"] for row in rows)
