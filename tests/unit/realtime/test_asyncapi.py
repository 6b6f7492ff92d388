"""What is documented is what is understood and what is said."""

import re
from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator

from app.errors import CATALOGUE, ApiError
from app.realtime import protocol
from app.realtime.asyncapi import CLIENT_FRAMES, SERVER_FRAMES, document
from app.realtime.log import Message
from app.realtime.transport.packets import Batch, event_frame, events_frame
from tests.apps import make_app
from tests.unit.realtime.fakes import frame_of

MESSAGE = Message("t", "e", 7, "m", 99, b'{"a":1}')


def sent(frame):
    (packet,) = Batch([frame]).packets
    return frame_of(packet)


def test_every_frame_that_is_parsed_is_documented():
    assert set(CLIENT_FRAMES) == set(protocol.PARSERS)


@pytest.mark.parametrize("schema", [*CLIENT_FRAMES.values(), *SERVER_FRAMES.values()])
def test_every_schema_is_one(schema):
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("frame", "is_right"),
    [
        ({"type": "subscribe", "topic": "t"}, True),
        ({"type": "subscribe", "topic": "t", "since": 0, "epoch": "e", "ack": False, "mode": "latest", "batch": True, "id": "1"}, True),
        ({"type": "subscribe", "topic": "t", "since": -1}, False),
        ({"type": "subscribe", "topic": "t" * 256}, False),
        ({"type": "subscribe", "topic": "t", "mode": "newest"}, False),
        ({"type": "unsubscribe"}, False),
        ({"type": "publish", "topic": "t", "id": "1", "payload": None}, True),
        ({"type": "publish", "topic": "t", "payload": 1}, False),
        ({"type": "publish", "topic": "t", "id": "x" * 129, "payload": 1}, False),
        ({"type": "ack", "topic": "t", "seq": 3}, True),
        ({"type": "ack", "acks": {"t": 3}}, True),
        ({"type": "ack", "acks": {}}, False),
        ({"type": "ack", "acks": {"a b": 3}}, False),
        ({"type": "ack", "id": "m"}, True),
        ({"type": "ack", "topic": "t", "seq": 2**53}, False),
        ({"type": "auth", "token": "x"}, True),
        ({"type": "auth"}, False),
    ],
)
def test_the_document_and_the_parser_agree(frame, is_right):
    assert Draft202012Validator(CLIENT_FRAMES[frame["type"]]).is_valid(frame) is is_right
    if is_right:
        protocol.parse(frame, 1024)
    else:
        with pytest.raises(ApiError):
            protocol.parse(frame, 1024)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("event", sent(event_frame(MESSAGE))),
        ("event", sent(event_frame(MESSAGE, (3, 6)))),
        ("events", sent(events_frame([MESSAGE, MESSAGE]))),
        ("acked", protocol.ack_frame()),
        ("acked", protocol.ack_frame("1", topic="t", seq=1, epoch="e", head=4, recovered=False, reason="history_gap")),
        ("error", protocol.error_frame(ApiError("token_expired"), grace_ms=30_000)),
        *[("error", protocol.error_frame(ApiError(code), id="1", topic="t", span=(1, 2), epoch="e")) for code in CATALOGUE],
    ],
)
def test_what_the_server_says_is_as_documented(name, frame):
    Draft202012Validator(SERVER_FRAMES[name]).validate(orjson.loads(orjson.dumps(frame)))


def test_it_is_served_to_everybody(tmp_path):
    answer = make_app(tmp_path).test_client().get("/asyncapi.json")
    assert answer.status_code == 200 and answer.json == orjson.loads(orjson.dumps(document()))


def test_the_page_of_the_docs_names_every_field_of_every_frame():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "realtime.md").read_text()
    frames = re.search("^```$(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    fields = {field for schema in {**CLIENT_FRAMES, **SERVER_FRAMES}.values() for part in _objects(schema) for field in part}
    assert [field for field in sorted(fields) if not re.search(rf"\b{field}\b", frames)] == []


def _objects(schema):
    """The properties of an object, of its alternatives and of the items of its lists."""
    for alternative in (schema, *schema.get("oneOf", []), *schema.get("anyOf", [])):
        properties = alternative.get("properties", {})
        yield properties
        for each in properties.values():
            yield each.get("items", {}).get("properties", {})
