"""Events in MongoDB: one unordered insert of plain dicts, and the pages that are read back.

An `_id` that is there already is a duplicate, not an error. Anything else that MongoDB says against a write means that
it cannot be relied on now: the whole batch goes down the ladder, and its `_id`s keep it from being stored twice.
"""

from typing import Any

from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from app.telemetry.document import TelemetryEvent
from app.telemetry.query import EventQuery, Page, encode_cursor
from app.telemetry.schemas import EVENT_TYPES
from app.telemetry.sinks import SinkUnavailable, Written

DUPLICATE_KEY = 11000
NEWEST_FIRST = [("ts", -1), ("_id", -1)]


class MongoSink:
    def __init__(self, database: Database):
        self._events = database[TelemetryEvent._get_collection_name()]

    def write(self, events: list[dict[str, Any]]) -> Written:
        try:
            self._events.insert_many(events, ordered=False)
        except BulkWriteError as error:
            return Written("mongo", _count_duplicates(error))
        except PyMongoError as error:
            raise SinkUnavailable(f"{type(error).__name__}: {error}") from error
        return Written("mongo", 0)

    def find(self, query: EventQuery) -> Page:
        """Raises SinkUnavailable."""
        try:
            found = list(self._events.find(_filter(query)).sort(NEWEST_FIRST).limit(query.limit + 1))
        except PyMongoError as error:
            raise SinkUnavailable(f"{type(error).__name__}: {error}") from error
        return Page(found[: query.limit], encode_cursor(found[query.limit - 1]) if len(found) > query.limit else None)


def _count_duplicates(error: BulkWriteError) -> int:
    problems = error.details.get("writeErrors", [])
    others = [problem for problem in problems if problem.get("code") != DUPLICATE_KEY]
    if others or error.details.get("writeConcernErrors"):
        raise SinkUnavailable(str((others or error.details["writeConcernErrors"])[0].get("errmsg"))) from error
    return len(problems)


def _filter(query: EventQuery) -> dict[str, Any]:
    """A `type` is always given where an `app` is: so (app, type, ts) serves the order, merged over the few types."""
    wanted: dict[str, Any] = dict(query.exact)
    if "app" in wanted and "type" not in wanted and "name" not in wanted:
        wanted["type"] = {"$in": list(EVENT_TYPES)}
    bounds = {"$gte": query.since, "$lt": query.until}
    if query.after is not None:
        ts, event_id = query.after
        bounds["$lte"] = ts
        wanted["$or"] = [{"ts": {"$lt": ts}}, {"ts": ts, "_id": {"$lt": event_id}}]
    bounds = {operator: value for operator, value in bounds.items() if value is not None}
    if bounds:
        wanted["ts"] = bounds
    return wanted
