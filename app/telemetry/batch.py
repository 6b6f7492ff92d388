"""From what was sent to what is stored. Pure: takes the decoded body and `now`, returns documents and rejections.

An event gets its identity here, before the first attempt to write it, so that a retry, a re-import or a crash between
two steps finds it again: made from (app, eventId) where the SDK sends one, else fresh.
"""

import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from marshmallow import ValidationError

from app.clock import to_datetime
from app.errors import ApiError, flatten_messages
from app.telemetry.schemas import EnvelopeSchema, EventSchema

MAX_SKEW_MS = 60_000  # a client's clock this far off, in either direction, is corrected
MAX_AHEAD_MS = 86_400_000  # a ts further in the future than this cannot be meant
KNOWN_ID_MARK = "e"  # a fresh id begins with the digits of the time instead

ENVELOPE = EnvelopeSchema()
EVENT = EventSchema()
STORED_NAMES = {"app": "app", "env": "env", "release": "release", "user_id": "userId", "session_id": "sessionId", "user": "user"}


@dataclass(frozen=True, slots=True)
class Batch:
    """`events` are documents ready for BSON and for orjson; `rejected` are `{index, code, message}`."""

    sent: int
    events: list[dict[str, Any]]
    rejected: list[dict[str, Any]]


def read_batch(body: Any, now: int, max_events: int, default_type: str | None = None) -> Batch:
    """Raises ApiError `bad_request` for an envelope of the wrong shape and `payload_too_large` for too many events."""
    if not isinstance(body, dict):
        raise ApiError("bad_request", "The body must be a JSON object.")
    try:
        envelope = ENVELOPE.load(body)
    except ValidationError as error:
        raise ApiError("bad_request", "The batch has the wrong shape; see details.", details=flatten_messages(error.messages)) from None
    sent = envelope.pop("events", [])
    if len(sent) > max_events:
        raise ApiError("payload_too_large", f"At most {max_events} events a batch.")
    return _judge_each(sent, envelope, now, default_type)


def _judge_each(sent: list[Any], envelope: dict[str, Any], now: int, default_type: str | None) -> Batch:
    skew = _skew(envelope.pop("sent_at", None), now)
    shared = _present(envelope)
    fresh_ids = FreshIds(now)
    events, rejected = [], []
    for index, raw in enumerate(sent):
        if default_type and isinstance(raw, dict) and raw.get("type") is None:
            raw = {**raw, "type": default_type}
        try:
            events.append(_document(EVENT.load(raw), shared, now, skew, fresh_ids))
        except ValidationError as error:
            rejected.append({"index": index, **_rejection(error)})
    return Batch(len(sent), events, rejected)


def _document(event: dict[str, Any], shared: dict[str, Any], now: int, skew: int, fresh_ids: "FreshIds") -> dict[str, Any]:
    fields = {**shared, **_present(event)}
    if "app" not in fields:
        raise ValidationError({"app": ["Must stand on the batch or on the event."]})
    sent_ts, event_id = event.get("ts"), event.get("event_id")
    ts = corrected(sent_ts, now, skew)
    received = to_datetime(now)
    document = {
        "_id": fresh_ids.next() if event_id is None else known_id(fields["app"], event_id),
        **fields,
        "type": event["type"],
        "name": event["name"],
        "props": event.get("props") or {},
        "ts": to_datetime(ts),
        "createdAt": received,
        "updatedAt": received,
    }
    if sent_ts is not None and ts != sent_ts:
        document["rawTs"] = to_datetime(sent_ts)
    return document


def corrected(sent_ts: int | None, now: int, skew: int) -> int:
    """The event's time by our clock: shifted by the client's skew; one that is still far ahead becomes now."""
    if sent_ts is None:
        return now
    ts = max(0, sent_ts + skew)
    return now if ts > now + MAX_AHEAD_MS else ts


def _skew(sent_at: int | None, now: int) -> int:
    skew = 0 if sent_at is None else now - sent_at
    return skew if abs(skew) > MAX_SKEW_MS else 0


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {stored: fields[name] for name, stored in STORED_NAMES.items() if fields.get(name) is not None}


def known_id(app: str, event_id: str) -> str:
    """The same (app, eventId) is the same event, whoever sends it again and whenever."""
    return KNOWN_ID_MARK + blake2b(f"{app}\0{event_id}".encode(), digest_size=16).hexdigest()


def is_known_id(id_: str) -> bool:
    """True where the id was made from an eventId, so that the same one may come again."""
    return id_.startswith(KNOWN_ID_MARK)


class FreshIds:
    """Ids for one batch: ordered by time, which keeps MongoDB's `_id` index compact, and unguessable."""

    def __init__(self, now: int):
        self._prefix = f"{now:012x}{os.urandom(8).hex()}"
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:04x}"


def _rejection(error: ValidationError) -> dict[str, str]:
    rows = flatten_messages(error.messages)
    message = "; ".join(f"{row['path']}: {row['message']}" if row["path"] else row["message"] for row in rows)
    return {"code": "bad_request", "message": message}
