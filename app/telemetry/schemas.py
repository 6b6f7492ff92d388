"""The schema of record: what a batch and an event are. The error details and the OpenAPI document come from it.

Unknown fields of a batch are ignored, so that a newer SDK can talk to an older server; `null` means the same as absent.
"""

import re

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from app.errors import MAX_DETAILS
from app.telemetry.event_types import EVENT_TYPES
from app.telemetry.fields import LONG, MAX_PROPS_BYTES, MAX_USER_BYTES, SHORT, Identifier, Moment, StorableObject
from app.telemetry.stats.sketch import RELATIVE_ERROR
from app.telemetry.stats.summary import BUCKETS_MS, MAX_BUCKETS

MAX_DIGITS = 19  # of nanoseconds, which are refused by their name
OFFSET_AFTER_A_SPACE = re.compile(r"(\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?) (\d{2}(?::?\d{2})?)$")
MISPLACED_EVENTS = "Missing, and {!r} is not read: the events come in a list of this name."
EVENTS_SENTENCE = "May be empty. Each is judged by itself."

short = validate.Length(1, SHORT)
long = validate.Length(1, LONG)


class EnvelopeFields(Schema):
    """What may stand on the batch, and on an event to override it."""

    class Meta:
        unknown = EXCLUDE

    app = fields.String(allow_none=True, validate=short, metadata={"description": "Must stand on the batch or on the event."})
    release = fields.String(allow_none=True, validate=short)
    env = fields.String(allow_none=True, validate=short)
    user_id = Identifier(data_key="userId", allow_none=True, validate=long)
    session_id = Identifier(data_key="sessionId", allow_none=True, validate=long)
    user = StorableObject(allow_none=True, max_bytes=MAX_USER_BYTES)


class EventSchema(EnvelopeFields):
    type = fields.String(required=True, validate=validate.OneOf(EVENT_TYPES))
    name = fields.String(required=True, validate=long)
    ts = Moment(allow_none=True)
    props = StorableObject(allow_none=True, max_bytes=MAX_PROPS_BYTES)
    event_id = Identifier(data_key="eventId", allow_none=True, validate=short)


class EnvelopeSchema(EnvelopeFields):
    sent_at = Moment(data_key="sentAt", allow_none=True)
    events = fields.List(fields.Raw(allow_none=True))  # each is judged by itself: one bad event never costs the others

    @validates_schema(pass_original=True)
    def refuse_misplaced_events(self, data, original, **kwargs) -> None:
        """No events are nothing to save. Events under another name would be lost, and taken for saved."""
        if "events" in original:
            return
        for name, value in original.items():
            if name not in ENVELOPE_NAMES and (isinstance(value, list) or name in EVENT_NAMES):
                raise ValidationError(MISPLACED_EVENTS.format(name), "events")


def _names(schema: type[Schema]) -> frozenset[str]:
    return frozenset(field.data_key or name for name, field in schema().fields.items())


ENVELOPE_NAMES, EVENT_NAMES = _names(EnvelopeSchema), _names(EventSchema)


class BatchSchema(EnvelopeSchema):
    """For the documentation: the envelope with its events spelled out."""

    events = fields.List(fields.Nested(EventSchema), metadata={"description": EVENTS_SENTENCE})


class PerfEventSchema(EventSchema):
    type = fields.String(allow_none=True, validate=validate.OneOf(EVENT_TYPES), metadata={"description": "perf where it is not given."})


class PerfBatchSchema(EnvelopeSchema):
    events = fields.List(fields.Nested(PerfEventSchema), metadata={"description": EVENTS_SENTENCE})


class RejectedSchema(Schema):
    index = fields.Integer(metadata={"description": "Position in the events that were sent."})
    code = fields.String()
    message = fields.String()


class AdjustedSchema(Schema):
    path = fields.String(metadata={"description": "A field of the batch, or `events.<index>.<field>`; empty for the body itself."})
    message = fields.String()


class SavedSchema(Schema):
    ok = fields.Boolean()
    saved = fields.Integer(metadata={"description": "Durable now, the known ones included: saved + rejected = sent."})
    duplicates = fields.Integer()
    rejected = fields.List(fields.Nested(RejectedSchema))
    adjusted = fields.List(
        fields.Nested(AdjustedSchema),
        metadata={"description": f"What only describes events and was cut, corrected or taken as absent; at most {MAX_DETAILS} rows."},
    )
    storage = fields.String(
        validate=validate.OneOf(("mongo", "spool", "memory")), metadata={"description": "Absent where nothing was saved."}
    )


class ConfigQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    app = fields.String(validate=short)


class MomentText(Moment):
    """The same in a query string, where a number arrives as text, and the `+` of an offset that nobody escaped as a space."""

    def _deserialize(self, value, attr, data, **kwargs) -> int:
        if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
            value = int(value)
        else:
            value = OFFSET_AFTER_A_SPACE.sub(r"\1+\2", value)
        return super()._deserialize(value, attr, data, **kwargs)


class QuerySchema(Schema):
    """For administrators. A misspelt filter would filter nothing: so the routes ask for unknown names to be refused."""

    error_messages = {"unknown": "There is no such parameter."}


class EventsQuerySchema(QuerySchema):
    app = fields.String(validate=short)
    env = fields.String(validate=short)
    type = fields.String(validate=validate.OneOf(EVENT_TYPES))
    name = fields.String(validate=long)
    user_id = fields.String(data_key="userId", validate=long)
    session_id = fields.String(data_key="sessionId", validate=long)
    since = MomentText(data_key="from", metadata={"description": "Inclusive; epoch milliseconds or ISO 8601."})
    until = MomentText(data_key="to", metadata={"description": "Exclusive."})
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(metadata={"description": "nextCursor of the page before."})


class StatsQuerySchema(QuerySchema):
    app = fields.String(required=True, validate=short)
    env = fields.String(validate=short, metadata={"description": "All of them where it is not given."})
    since = MomentText(data_key="from", metadata={"description": "Epoch milliseconds or ISO 8601; an hour before `to` where not given."})
    until = MomentText(data_key="to", metadata={"description": "Exclusive; now where not given. The range is widened to whole buckets."})
    bucket = fields.String(
        validate=validate.OneOf(list(BUCKETS_MS)),
        metadata={"description": f"At most {MAX_BUCKETS} in a range; where not given the narrowest of which the range has at most 120."},
    )
    top = fields.Integer(load_default=10, validate=validate.Range(0, 50), metadata={"description": "How many names are listed."})


class NameCountSchema(Schema):
    type = fields.String(validate=validate.OneOf(EVENT_TYPES))
    name = fields.String()
    count = fields.Integer()


class ValuesSchema(NameCountSchema):
    p50 = fields.Float()
    p75 = fields.Float()
    p95 = fields.Float()
    p99 = fields.Float()


class ApiStatsSchema(Schema):
    count = fields.Integer()
    failed = fields.Integer(metadata={"description": "props.ok is false or, without an ok, props.status is 400 or more, or 0."})
    failureRate = fields.Float(allow_none=True, metadata={"description": "failed / count; null without any."})


class NumbersSchema(Schema):
    count = fields.Integer()
    byType = fields.Dict(keys=fields.String(validate=validate.OneOf(EVENT_TYPES)), values=fields.Integer())
    byName = fields.List(
        fields.Nested(NameCountSchema),
        metadata={"description": "The most frequent names of the whole range, the same in every bucket, without those that are 0 there."},
    )
    other = fields.Integer(metadata={"description": "All names that byName does not list."})
    errorRate = fields.Float(allow_none=True, metadata={"description": "Events of type error / all events; null without any."})
    api = fields.Nested(ApiStatsSchema)
    values = fields.List(
        fields.Nested(ValuesSchema),
        metadata={
            "description": "Percentiles of perf and api events by name, within "
            f"{RELATIVE_ERROR:.0%} of the true ones. An event's value is the first number among props.value, props.duration and props.ms."
        },
    )


class BucketSchema(NumbersSchema):
    at = fields.String(metadata={"format": "date-time", "description": "Its first moment."})


class StatsSchema(Schema):
    ok = fields.Boolean()
    app = fields.String()
    env = fields.String()
    since = fields.String(data_key="from", metadata={"format": "date-time"})
    until = fields.String(data_key="to", metadata={"format": "date-time"})
    bucketMs = fields.Integer()
    totals = fields.Nested(NumbersSchema)
    buckets = fields.List(fields.Nested(BucketSchema), metadata={"description": "Every one of the range, in order, the empty ones too."})


class StoredEventSchema(EventSchema):
    id = fields.String()
    raw_ts = fields.String(data_key="rawTs", metadata={"description": "The client's own ts, where its clock was corrected."})
    ts = fields.String(metadata={"format": "date-time"})
    created_at = fields.String(data_key="createdAt", metadata={"format": "date-time"})
    updated_at = fields.String(data_key="updatedAt", metadata={"format": "date-time"})


class EventsPageSchema(Schema):
    ok = fields.Boolean()
    events = fields.List(fields.Nested(StoredEventSchema), metadata={"description": "The newest first."})
    next_cursor = fields.String(data_key="nextCursor", allow_none=True)
