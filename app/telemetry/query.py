"""Reading events back: what may be asked, in which order, and where the next page begins. Pure.

Newest first by (ts, _id). A cursor names the last event of a page; the next page is what comes strictly after it, so
events that arrive meanwhile move nothing, and an event that stands in two places (a spool segment sent twice) is seen once.
"""

import base64
import binascii
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from app.clock import to_datetime, to_ms
from app.errors import ApiError
from app.telemetry.fields import MAX_MS

EXACT = {"app": "app", "env": "env", "type": "type", "name": "name", "user_id": "userId", "session_id": "sessionId"}


@dataclass(frozen=True, slots=True)
class EventQuery:
    """`exact` maps stored field names to values; times are naive UTC; `after` is the (ts, _id) of the last event seen."""

    exact: dict[str, str]
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, str] | None = None
    limit: int = 100


class Page(NamedTuple):
    events: list[dict[str, Any]]
    next_cursor: str | None


def query_from(arguments: dict[str, Any]) -> EventQuery:
    """From the loaded EventsQuerySchema. Raises ApiError `bad_request` for a cursor that was not made here."""
    return EventQuery(
        exact={stored: arguments[name] for name, stored in EXACT.items() if name in arguments},
        since=to_datetime(arguments["since"]) if "since" in arguments else None,
        until=to_datetime(arguments["until"]) if "until" in arguments else None,
        after=decode_cursor(arguments["cursor"]) if "cursor" in arguments else None,
        limit=arguments["limit"],
    )


def encode_cursor(event: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([to_ms(event["ts"]), event["_id"]])).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        ms, event_id = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if type(ms) is int and 0 <= ms <= MAX_MS and isinstance(event_id, str):
            return to_datetime(ms), event_id
    except (ValueError, TypeError, binascii.Error):
        pass  # whatever is wrong with it, the sentence below is the answer
    raise ApiError("bad_request", "The cursor is not one that was given out here.", details=[{"path": "cursor", "message": "Unknown."}])


def position(event: dict[str, Any]) -> tuple[datetime, str]:
    return event["ts"], event["_id"]


def matches(event: dict[str, Any], query: EventQuery) -> bool:
    ts = event["ts"]
    if (query.since is not None and ts < query.since) or (query.until is not None and ts >= query.until):
        return False
    if query.after is not None and (ts, event["_id"]) >= query.after:
        return False
    return all(event.get(name) == value for name, value in query.exact.items())


def page_of(events: Iterable[dict[str, Any]], limit: int) -> Page:
    """The newest `limit` of them, and a cursor where there are more."""
    newest = heapq.nlargest(limit + 1, events, key=position)
    return Page(newest[:limit], encode_cursor(newest[limit - 1]) if len(newest) > limit else None)
