"""Schemas of the bodies of /api/realtime. /openapi.json is generated from them."""

import re

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validates_schema
from marshmallow.validate import Length

from app.realtime.protocol import ID_RULE, MAX_ID_LENGTH, is_id
from app.realtime.topics import TOPIC_PATTERN, TOPIC_RULE, is_topic
from app.realtime.transport.wire import RESERVED_EVENTS

OUR_EVENTS = frozenset({"message", "ping", "pong"})  # the protocol of /realtime uses these
MAX_MESSAGES = 1000
ROOM_PATTERN = r"^(role|user):.{1,256}$"


def _check(is_right, sentence):
    def validator(value):
        if not is_right(value):
            raise ValidationError(sentence)

    return validator


def _is_free_event(name: str) -> bool:
    return is_id(name) and name not in RESERVED_EVENTS and name not in OUR_EVENTS


def _is_room(name: str) -> bool:
    return re.fullmatch(ROOM_PATTERN, name) is not None


class MessageSchema(Schema):
    """One message to publish."""

    class Meta:
        unknown = EXCLUDE

    topic = fields.String(required=True, validate=_check(is_topic, f"Must be {TOPIC_RULE}."), metadata={"pattern": TOPIC_PATTERN})
    payload = fields.Raw(required=True, allow_none=True, metadata={"description": "Any JSON."})
    id = fields.String(
        validate=_check(is_id, f"Must be {ID_RULE}."),
        metadata={"minLength": 1, "maxLength": MAX_ID_LENGTH, "description": "A repeated id publishes nothing and gets the first answer."},
    )


class PublishSchema(MessageSchema):
    """One message, or a list of `messages`."""

    topic = fields.String(validate=_check(is_topic, f"Must be {TOPIC_RULE}."), metadata={"pattern": TOPIC_PATTERN})
    payload = fields.Raw(allow_none=True, metadata={"description": "Any JSON."})
    messages = fields.List(fields.Nested(MessageSchema), validate=Length(1, MAX_MESSAGES))

    @validates_schema
    def _is_one_or_many(self, body, **_):
        missing = [] if "messages" in body else [name for name in ("topic", "payload") if name not in body]
        if missing:
            raise ValidationError({name: ["Missing data for required field."] for name in missing})


class OkSchema(Schema):
    """The answer of a successful request."""

    ok = fields.Boolean(required=True)


class PlaceSchema(Schema):
    """The position that a published message has."""

    topic = fields.String()
    seq = fields.Integer()
    epoch = fields.String()
    duplicate = fields.Boolean()


class PublishedSchema(PlaceSchema, OkSchema):
    """The position of the message, or of each of `messages` in their order."""

    messages = fields.List(fields.Nested(PlaceSchema))


class EmitSchema(Schema):
    """A business event to a room."""

    class Meta:
        unknown = EXCLUDE

    event = fields.String(
        required=True,
        validate=_check(_is_free_event, f"Must be {ID_RULE}, and none of {', '.join(sorted(RESERVED_EVENTS | OUR_EVENTS))}."),
        metadata={"minLength": 1, "maxLength": MAX_ID_LENGTH, "example": "reservation:update"},
    )
    to = fields.String(required=True, validate=_check(_is_room, "Must be role:<role> or user:<id>."), metadata={"pattern": ROOM_PATTERN})
    payload = fields.Raw(required=True, allow_none=True, metadata={"description": "Any JSON."})
