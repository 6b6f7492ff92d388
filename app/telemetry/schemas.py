"""The schema of record: what a batch and an event are. The error details and the OpenAPI document come from it.

Unknown fields are ignored, so that a newer SDK can talk to an older server; `null` means the same as absent.
"""

from marshmallow import EXCLUDE, Schema, fields, validate

from app.telemetry.fields import Identifier, Moment, StorableObject

EVENT_TYPES = ("page", "event", "error", "api", "perf")
MAX_PROPS_BYTES = 32_768
MAX_USER_BYTES = 8_192

short = validate.Length(1, 128)
long = validate.Length(1, 256)


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


class BatchSchema(EnvelopeSchema):
    """For the documentation: the envelope with its events spelled out."""

    events = fields.List(fields.Nested(EventSchema))


class RejectedSchema(Schema):
    index = fields.Integer(metadata={"description": "Position in the events that were sent."})
    code = fields.String()
    message = fields.String()


class SavedSchema(Schema):
    ok = fields.Boolean()
    saved = fields.Integer(metadata={"description": "Durable now, the known ones included: saved + rejected = sent."})
    duplicates = fields.Integer()
    rejected = fields.List(fields.Nested(RejectedSchema))
    storage = fields.String(validate=validate.OneOf(("mongo", "spool", "memory")))


class ConfigQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    app = fields.String(validate=short)


class ConfigSchema(Schema):
    sample_rate = fields.Float(data_key="sampleRate")
    max_batch = fields.Integer(data_key="maxBatch")
    flush_interval_ms = fields.Integer(data_key="flushIntervalMs")
    allow = fields.List(fields.String())
    deny = fields.List(fields.String())


class MomentText(Moment):
    """The same in a query string, where a number arrives as text."""

    def _deserialize(self, value, attr, data, **kwargs) -> int:
        return super()._deserialize(int(value) if value.isdigit() and len(value) <= 15 else value, attr, data, **kwargs)


class EventsQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

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


class StoredEventSchema(EventSchema):
    id = fields.String()
    raw_ts = fields.String(data_key="rawTs", metadata={"description": "The client's own ts, where its clock was corrected."})
    created_at = fields.String(data_key="createdAt")
    updated_at = fields.String(data_key="updatedAt")


class EventsPageSchema(Schema):
    ok = fields.Boolean()
    events = fields.List(fields.Nested(StoredEventSchema), metadata={"description": "The newest first."})
    next_cursor = fields.String(data_key="nextCursor", allow_none=True)
