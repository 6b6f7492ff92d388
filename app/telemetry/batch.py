"""From what was sent to what is stored: takes the decoded body and `now`, returns events and rejections, and touches nothing else.

An event gets its identity here, before the first attempt to write it, so that a retry, a re-import or a crash between
two steps finds it again: made from (app, eventId) where the SDK sends one, else fresh.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Any, NamedTuple

import orjson
from marshmallow import ValidationError

from app.errors import ApiError, flatten_messages, forget_where
from app.serving.fairness import TimeSlice
from app.telemetry.adjust import OF_ENVELOPE, OF_EVENT, adjusted
from app.telemetry.event import StoredEvent
from app.telemetry.fields import EARLIEST_MS
from app.telemetry.schemas import EnvelopeSchema, EventSchema

MAX_SKEW_MS = 60_000  # a client's clock this far off, in either direction, is corrected
MAX_AHEAD_MS = 86_400_000  # a ts further in the future than this cannot be meant
KNOWN_ID_MARK = "e"  # a fresh id begins with the digits of the time instead
ID_DIGEST_BYTES = 16
KNOWN_ID_CHARS = len(KNOWN_ID_MARK) + 2 * ID_DIGEST_BYTES

ENVELOPE = EnvelopeSchema()
EVENT = EventSchema()


class Batch(NamedTuple):
    """`rejected` are `{index, code, message}`; len(events) + len(rejected) is what was sent. `shared_bytes` is what every stored
    event repeats of the envelope, `adjusted` are `{path, message}` of what was not taken as it was sent."""

    events: list[StoredEvent]
    rejected: list[dict[str, Any]]
    shared_bytes: int
    adjusted: list[dict[str, str]]


class Rejected(Exception):
    """One event is not stored; the message says why."""


def read_batch(body: Any, now: int, max_events: int, default_type: str | None = None) -> Batch:
    """The schema of record's way. Raises ApiError `bad_request` for an envelope of the wrong shape and
    `payload_too_large` for too many events."""
    if not isinstance(body, dict):
        raise ApiError("bad_request", "The body must be a JSON object.")
    sent = body.get("events", [])
    if isinstance(sent, list):
        refuse_too_many(len(sent), max_events)  # before anything is done for each of them
    envelope, rows = read_envelope(body)
    maker = EventMaker(envelope, now)
    batch, time_slice = Batch([], [], maker.shared_bytes, rows), TimeSlice.of_loop_iteration()
    for index, raw in enumerate(sent):
        judge(raw, index, maker, default_type, batch)
        time_slice.yield_if_over()  # a thousand bad events would keep all others waiting for a tenth of a second
    return batch


def read_envelope(sent: dict[str, Any]) -> tuple["Envelope", list[dict[str, str]]]:
    """By the schema of record, and what of it was adjusted. Raises ApiError `bad_request`."""
    rows: list[dict[str, str]] = []
    try:
        envelope = ENVELOPE.load(adjusted(sent, OF_ENVELOPE, "", rows))
    except ValidationError as error:
        details = flatten_messages(forget_where(error).messages)  # marshmallow keeps it in the frame that raises it
        raise ApiError("bad_request", "The batch has the wrong shape; see details.", details=details) from None
    return Envelope(**{name: envelope.get(name) for name in Envelope._fields}), rows


class Unreadable(NamedTuple):
    """Stands where an event should be that cannot be decoded."""

    reason: str


def judge(raw: Any, index: int, maker: "EventMaker", default_type: str | None, batch: Batch) -> None:
    """Adds one event, by the schema of record, to the batch's events or to its rejections."""
    rows: list[dict[str, str]] = []
    if default_type and isinstance(raw, dict) and raw.get("type") is None:
        raw = {**raw, "type": default_type}
    try:
        if isinstance(raw, Unreadable):
            raise Rejected(raw.reason)
        event = EVENT.load(adjusted(raw, OF_EVENT, f"events.{index}.", rows) if isinstance(raw, dict) else raw)
        overrides = Envelope(**{name: event.get(name) for name in Envelope._fields[:SHARED]})
        ts = event.get("ts")
        batch.events.append(maker.make(event["type"], event["name"], ts, event.get("props"), event.get("event_id"), overrides))
        if ts is not None and ts < EARLIEST_MS and maker.is_too_early(ts):
            rows.append({"path": f"events.{index}.ts", "message": "Before the year 2000: taken as absent."})
        batch.adjusted.extend(rows)
    except (ValidationError, Rejected) as error:
        batch.rejected.append({"index": index, "code": "bad_request", "message": _sentence(forget_where(error))})


def refuse_too_many(sent: int, max_events: int) -> None:
    if sent > max_events:
        raise ApiError("payload_too_large", f"At most {max_events} events a batch.")


class Envelope(NamedTuple):
    """What holds for every event of a batch that does not say otherwise."""

    app: str | None = None
    env: str | None = None
    release: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    user: dict[str, Any] | None = None
    sent_at: int | None = None


SHARED = Envelope._fields.index("sent_at")  # so many fields, from the first on, an event may override


class EventMaker:
    """Makes the events of one batch: the envelope's fields, our time, an identity."""

    def __init__(self, envelope: Envelope, now: int):
        self._shared = envelope[:SHARED]
        self.shared_bytes = len(orjson.dumps(self._shared))
        self._now = now
        self._skew = 0 if envelope.sent_at is None else now - envelope.sent_at
        if abs(self._skew) <= MAX_SKEW_MS:
            self._skew = 0
        self._latest = now + MAX_AHEAD_MS
        self._fresh_ids: Iterator[str] | None = None

    def make(self, type_, name, ts=None, props=None, event_id=None, overrides: tuple | None = None) -> StoredEvent:
        """`overrides` are the fields of an Envelope, None where the event does not say. Raises Rejected where neither the event
        nor its batch says of which application it is."""
        app, env, release, user_id, session_id, user = self._shared if overrides is None else self._merged(overrides)
        if app is None:
            raise Rejected("app: Must stand on the batch or on the event.")
        now, raw_ts = self._now, None
        if ts is None:
            ts = now
        elif self._skew or not EARLIEST_MS <= ts <= self._latest:
            raw_ts, ts = ts, self._corrected(ts)
        if event_id is None:
            id_ = self._fresh_id()
        else:
            id_ = known_id(app, event_id)
        props = {} if props is None else props
        return StoredEvent(id_, app, type_, name, props, ts, now, env, release, user_id, session_id, user, raw_ts)

    def _fresh_id(self) -> str:
        if self._fresh_ids is None:
            prefix = f"{self._now:012x}{os.urandom(8).hex()}"  # ordered by time, which keeps MongoDB's `_id` index compact
            self._fresh_ids = (f"{prefix}{number:04x}" for number in count(1))
        return next(self._fresh_ids)

    def _merged(self, overrides: tuple) -> list:
        return [shared if own is None else own for own, shared in zip(overrides, self._shared)]

    def is_too_early(self, ts: int) -> bool:
        """Still so by our clock: an unset clock that wrote the `sentAt`, too, is corrected like any other."""
        return ts + self._skew < EARLIEST_MS

    def _corrected(self, ts: int) -> int:
        """The event's time by our clock: shifted by the client's skew; one that is then far ahead, or before 2000, becomes now."""
        return self._now if self.is_too_early(ts) or ts + self._skew > self._latest else ts + self._skew


def known_id(app: str, event_id: str) -> str:
    """The same (app, eventId) is the same event, whoever sends it again and whenever."""
    digest = _digest_of(app).copy()
    digest.update(event_id.encode())
    return KNOWN_ID_MARK + digest.hexdigest()


@lru_cache(maxsize=1024)
def _digest_of(app: str):
    """Of what all ids of an application begin with: going on from a copy is cheaper than beginning anew."""
    return blake2b(f"{app}\0".encode(), digest_size=ID_DIGEST_BYTES)


def is_known_id(id_: str) -> bool:
    """True where the id was made from an eventId, so that the same one may come again."""
    return id_.startswith(KNOWN_ID_MARK)


def _sentence(error: ValidationError | Rejected) -> str:
    if isinstance(error, Rejected):
        return str(error)
    rows = flatten_messages(error.messages)
    return "; ".join(f"{row['path']}: {row['message']}" if row["path"] else row["message"] for row in rows)
