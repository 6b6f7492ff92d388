"""Reading events back: what may be asked, in which order, and where the next page begins. Pure.

Newest first by (ts, _id). A cursor names the last event of a page; the next page is what comes strictly after it, so
events that arrive meanwhile move nothing, and an event that stands in two places (a spool segment sent twice) is seen once.
"""

import base64
import binascii
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from app.errors import ApiError
from app.json_values import is_timestamp
from app.telemetry.event import StoredEvent

EXACT = ("app", "env", "type", "name", "user_id", "session_id")


@dataclass(frozen=True, slots=True)
class EventQuery:
    """`exact` maps fields of StoredEvent to values; times are epoch milliseconds; `after` is the position of the last event seen."""

    exact: dict[str, str]
    since: int | None = None
    until: int | None = None
    after: tuple[int, str] | None = None
    limit: int = 100


class Page(NamedTuple):
    events: list[StoredEvent]
    next_cursor: str | None


def query_from(arguments: dict[str, Any]) -> EventQuery:
    """From the loaded EventsQuerySchema. Raises ApiError `bad_request` for a cursor that was not made here."""
    return EventQuery(
        exact={name: arguments[name] for name in EXACT if name in arguments},
        since=arguments.get("since"),
        until=arguments.get("until"),
        after=decode_cursor(arguments["cursor"]) if "cursor" in arguments else None,
        limit=arguments["limit"],
    )


def encode_cursor(event: StoredEvent) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(event.position)).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, str]:
    try:
        ms, event_id = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if is_timestamp(ms) and isinstance(event_id, str):
            return ms, event_id
    except (ValueError, TypeError, binascii.Error):
        pass  # whatever is wrong with it, the sentence below is the answer
    raise ApiError("bad_request", "The cursor is not one that was given out here.", details=[{"path": "cursor", "message": "Unknown."}])


def matches(event: StoredEvent, query: EventQuery) -> bool:
    if (query.since is not None and event.ts < query.since) or (query.until is not None and event.ts >= query.until):
        return False
    if query.after is not None and event.position >= query.after:
        return False
    return all(getattr(event, name) == value for name, value in query.exact.items())


def page_of(events: Iterable[StoredEvent], limit: int) -> Page:
    """The newest `limit` of them, and a cursor where there are more."""
    return page_from(heapq.nlargest(limit + 1, events, key=lambda event: event.position), limit)


def page_from(newest: list[StoredEvent], limit: int) -> Page:
    """From `limit + 1` events in order, or fewer where there are no more."""
    return Page(newest[:limit], encode_cursor(newest[limit - 1]) if len(newest) > limit else None)
