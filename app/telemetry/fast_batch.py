"""Reads a batch from bytes with the result of `read_batch` (batch.py), many times faster for ordinary batches.

msgspec decodes and checks in one pass in C. Whatever it accepts here the schema of record (schemas.py) accepts too, with the same
result; a hypothesis test holds the two together. A batch takes the first of four ways that can read it (CPU for 50 events):

- plain, 70 µs: every event is valid and has the fields of the envelope;
- overriding, 85 µs: every event is valid, some have their own user, session or application;
- one by one, 200 µs: the schema of record judges only the invalid events and words their errors;
- the schema of record for all, 1,950 µs: the body is no batch, or cannot be decoded as a whole.

Decoding a large body cannot be interrupted, so it waits for its turn (serving/fairness.py); between events other requests run.
"""

import codecs
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta, Raw, Struct

from app.http.json import UTF_16, admit_large
from app.json_values import MAX_INT64, MAX_TIMESTAMP_MS, MIN_INT64, parse_timestamp
from app.serving.fairness import LARGE_BYTES, TimeSlice, yield_before_large
from app.telemetry.batch import Batch, Envelope, EventMaker, Rejected, Unreadable, judge, read_batch, read_envelope, refuse_too_many
from app.telemetry.damaged_json import decode_batch, decode_event_or_not, decode_or_not
from app.telemetry.event import StoredEvent
from app.telemetry.event_types import EVENT_TYPES
from app.telemetry.fields import EARLIEST_MS, LONG, MAX_PROPS_BYTES, MAX_USER_BYTES, SHORT

Short = Annotated[str, Meta(min_length=1, max_length=SHORT)]
Long = Annotated[str, Meta(min_length=1, max_length=LONG)]
Moment = Annotated[int, Meta(ge=EARLIEST_MS, le=MAX_TIMESTAMP_MS)] | float | str | None

Int64 = Annotated[int, Meta(ge=MIN_INT64, le=MAX_INT64)]
EventType = Literal[EVENT_TYPES]  # type: ignore[valid-type]  # msgspec reads it at run time

LEVELS = 8  # of nesting that C checks; what is nested deeper goes to the schema, which allows 32
NUL_ESCAPE = b"\\u0000"  # nothing else can put a NUL into a key, and with one somewhere the schema looks closely
EVENTS_A_CHECK = 16  # of the turn, while all of them are good
MOST_TIMES_LONGER = 4  # than it came can JSON be when it is written again: `1e15,` becomes `1000000000000000.0,`


def _storable(levels: int) -> Any:
    """The type of a JSON value that BSON can hold."""
    scalar = str | Int64 | float | bool | None
    return scalar | dict[str, _storable(levels - 1)] | list[_storable(levels - 1)] if levels else scalar


StorableObject = dict[str, _storable(LEVELS)] | None


NULL = Raw(b"null")


class Doubt(Exception):
    """Not necessarily wrong: somebody slower must look at it."""


class PlainEvent(Struct, rename="camel", gc=False):
    name: Long
    type: EventType | None = None
    ts: Moment = None
    props: StorableObject = None
    event_id: Short | None = None
    app: None = None
    env: None = None
    release: None = None
    user_id: None = None
    session_id: None = None
    user: None = None


class AnyEvent(Struct, rename="camel", gc=False):
    name: Long
    type: EventType | None = None
    ts: Moment = None
    props: StorableObject = None
    event_id: Short | None = None
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | Int64 | None = None
    session_id: Long | Int64 | None = None
    user: StorableObject = None


class SentEnvelope(Struct, rename="camel"):
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | Int64 | None = None
    session_id: Long | Int64 | None = None
    user: StorableObject = None
    sent_at: Moment = None


class PlainBatch(SentEnvelope, rename="camel", kw_only=True):
    events: list[PlainEvent]


class AnyBatch(SentEnvelope, rename="camel", kw_only=True):
    events: list[AnyEvent]


class OpenBatch(Struct, rename="camel", kw_only=True):
    """All as it came."""

    app: Raw = NULL
    env: Raw = NULL
    release: Raw = NULL
    user_id: Raw = NULL
    session_id: Raw = NULL
    user: Raw = NULL
    sent_at: Raw = NULL
    events: list[Raw]


decode_plain = msgspec.json.Decoder(PlainBatch).decode
decode_any = msgspec.json.Decoder(AnyBatch).decode
decode_open = msgspec.json.Decoder(OpenBatch).decode
decode_event = msgspec.json.Decoder(AnyEvent).decode
OPEN_NAMES = dict(zip(Envelope._fields, (field.encode_name for field in msgspec.structs.fields(OpenBatch))))
NOTHING = (None,) * 6
IN_DOUBT = (Doubt, Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_batch_bytes(body: bytes, now: int, max_events: int, default_type: str | None = None) -> Batch:
    """Return the batch in `body`; `now` is in epoch milliseconds.

    Raises what `read_batch` raises, ApiError `bad_request` for bytes that are not JSON, and `payload_too_large` for more arrays and
    objects than a text may have.
    """
    body, adjusted = _without_padding(body)
    batch = _read(body, now, max_events, default_type)
    batch.adjusted[:0] = adjusted
    return batch


def _without_padding(body: bytes) -> tuple[bytes, list[dict[str, str]]]:
    """Return the JSON alone, and a line for each thing that was removed."""
    adjusted = []
    if body.startswith(codecs.BOM_UTF8):
        body = body.removeprefix(codecs.BOM_UTF8)
        adjusted.append({"path": "", "message": "A byte order mark before the JSON was ignored."})
    if body.endswith(b"\0") and not body.startswith(UTF_16):
        body = body.rstrip(b"\0")
        adjusted.append({"path": "", "message": "NUL characters after the JSON were ignored."})
    return body, adjusted


def _read(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    if len(body) > LARGE_BYTES:
        admit_large(body)
    if NUL_ESCAPE not in body:
        for read in (_read_plain, _read_overriding, _read_one_by_one):
            try:
                return read(body, now, max_events, default_type)
            except IN_DOUBT:
                yield_before_large(len(body))
    return read_batch(decode_batch(body, max_events), now, max_events, default_type)


def _read_plain(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    return _read_valid(decode_plain(body), None, len(body), now, max_events, default_type)


def _read_overriding(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    return _read_valid(decode_any(body), _overrides, len(body), now, max_events, default_type)


def _read_valid(
    sent: PlainBatch | AnyBatch,
    overrides: Callable[[Any], tuple | None] | None,
    size: int,
    now: int,
    max_events: int,
    default_type: str | None,
) -> Batch:
    """Make every event of a body of `size` bytes, or raise Doubt. Without `overrides` all events have the fields of the envelope."""
    refuse_too_many(len(sent.events), max_events)
    maker = EventMaker(_envelope(sent), now)
    may_be_large = size * MOST_TIMES_LONGER > MAX_PROPS_BYTES
    events, time_slice = [], TimeSlice.of_loop_iteration()
    yield_before_large(size)
    for index, event in enumerate(sent.events):
        type_, ts, props = event.type or default_type, event.ts, event.props
        if type_ is None:
            raise Doubt
        if ts is not None and type(ts) is not int:
            ts = _moment(ts)
        if may_be_large:
            if index % EVENTS_A_CHECK == 0:
                time_slice.yield_if_over()
            if props is not None and _json_size(props) > MAX_PROPS_BYTES:
                raise Doubt
        own = None if overrides is None else overrides(event)
        events.append(maker.make(type_, event.name, ts, props, event.event_id, own))
    return Batch(events, [], maker.shared_bytes, [])


def _read_one_by_one(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    sent = decode_open(body)
    refuse_too_many(len(sent.events), max_events)
    envelope, rows = read_envelope({name: _decoded(getattr(sent, own)) for own, name in OPEN_NAMES.items()} | {"events": []})
    maker = EventMaker(envelope, now)
    batch, time_slice = Batch([], [], maker.shared_bytes, rows), TimeSlice.of_loop_iteration()
    for index, raw in enumerate(sent.events):
        try:
            batch.events.append(_event(decode_event(raw), maker, default_type))
        except IN_DOUBT:
            judge(decode_event_or_not(bytes(raw)), index, maker, default_type, batch)
        time_slice.yield_if_over()
    return batch


def _decoded(raw: Raw) -> Any:
    value = decode_or_not(bytes(raw), "The value")
    if isinstance(value, Unreadable):
        raise Doubt
    return value


def _envelope(sent: SentEnvelope) -> Envelope:
    if sent.user is not None and _json_size(sent.user) > MAX_USER_BYTES:
        raise Doubt
    user_id, session_id = _identifier(sent.user_id), _identifier(sent.session_id)
    return Envelope(sent.app, sent.env, sent.release, user_id, session_id, sent.user, _moment(sent.sent_at))


def _event(event: AnyEvent, maker: EventMaker, default_type: str | None) -> StoredEvent:
    type_ = event.type or default_type
    if type_ is None:
        raise Doubt
    if event.props is not None and _json_size(event.props) > MAX_PROPS_BYTES:
        raise Doubt
    return maker.make(type_, event.name, _moment(event.ts), event.props, event.event_id, _overrides(event))


def _overrides(event: AnyEvent) -> tuple | None:
    """Return the event's own values of the envelope's fields, or None where it has none."""
    if event.user is not None and _json_size(event.user) > MAX_USER_BYTES:
        raise Doubt
    own = (event.app, event.env, event.release, _identifier(event.user_id), _identifier(event.session_id), event.user)
    return None if own == NOTHING else own


def _moment(value: int | float | str | None) -> int | None:
    if value is None:
        return None
    ms = parse_timestamp(value)
    if ms is None or ms < EARLIEST_MS:
        raise Doubt
    return ms


def _identifier(value: str | int | None) -> str | None:
    return str(value) if type(value) is int else value


def _json_size(value: dict[str, Any]) -> int:
    return len(orjson.dumps(value))
