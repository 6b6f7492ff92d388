"""What a client may say, and the exact form of what the server says."""

import contextlib
import math
from dataclasses import asdict

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.errors import ApiError
from app.realtime import protocol
from app.realtime.log import Message
from app.realtime.protocol import Ack, AckOne, Auth, Publish, Subscribe, Unsubscribe
from app.realtime.schemas import PublishSchema
from app.realtime.topics import TOPIC_PATTERN, is_topic
from app.realtime.transport.packets import Batch, event_frame, events_frame
from tests.unit.realtime.fakes import frame_of

MAX_BYTES = 1024

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4))
frames = st.fixed_dictionaries(
    {"type": st.sampled_from([*protocol.PARSERS, "event", ""])},
    optional={
        "topic": st.sampled_from(["t", "user:u1", "", "a b"]) | values,
        "id": st.sampled_from(["m1", ""]) | values,
        "payload": values,
        "acks": st.dictionaries(st.sampled_from(["t", "a b"]), st.integers(-1, 3) | values) | values,
        **{name: values | st.integers(0, 9) for name in ("since", "seq", "epoch", "ack", "mode", "batch", "token")},
    },
)


def parse(**fields):
    return protocol.parse(fields, MAX_BYTES)


def code_of(value):
    with pytest.raises(ApiError) as caught:
        protocol.parse(value, MAX_BYTES)
    return caught.value.code


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ({"type": "subscribe"}, "topic is missing; it must be a string of 1 to 255 letters, digits and : . _ - /."),
        ({"type": "publish", "topic": "t", "payload": 1}, "id is missing; it must be a string of 1 to 128 printable characters."),
        ({"type": "ack", "id": None}, "id is missing; it must be a string of 1 to 128 printable characters."),
        ({"type": "publish", "topic": "t", "payload": 1, "id": 7}, "id must be a string of 1 to 128 printable characters."),
        ({"type": "publish", "topic": "t", "id": "1"}, "payload is missing; it may be null."),
    ],
)
def test_what_is_missing_is_told_apart_from_what_is_wrong(frame, sentence):
    with pytest.raises(ApiError) as caught:
        protocol.parse(frame, MAX_BYTES)
    assert caught.value.message == sentence


@given(values | frames)
def test_whatever_comes_is_a_frame_or_an_error_of_the_catalogue(value):
    try:
        frame = protocol.parse(value, MAX_BYTES)
    except ApiError as error:
        assert error.code in ("bad_request", "payload_too_large")
        said = protocol.refusal_frame(error, value)
        assert orjson.loads(orjson.dumps(said)) == said
    else:
        assert isinstance(frame, protocol.Frame)


@given(st.dictionaries(st.sampled_from(["t", "user:u1", "a b", ""]) | st.text(max_size=5), frames | values, max_size=4) | values)
def test_whatever_is_to_be_resumed_is_a_frame_or_an_error_of_the_catalogue_topic_by_topic(value):
    try:
        positions = protocol.parse_resume(value)
    except ApiError as error:
        assert error.code == "bad_request"
        return
    assert [*positions] == [*value]
    for topic, position in positions.items():
        try:
            assert protocol.parse_position(topic, position).topic == topic
        except ApiError as error:
            assert error.code == "bad_request"


@given(st.dictionaries(st.sampled_from(["topic", "payload", "id", "messages", "other"]), values | st.lists(frames, max_size=3)) | values)
def test_whatever_is_published_over_http_is_messages_or_the_path_of_each_mistake(body):
    try:
        loaded = PublishSchema().load(body)
    except ValidationError as error:
        assert error.normalized_messages()
        return
    for message in loaded.get("messages") or [loaded]:
        with contextlib.suppress(ApiError):
            assert isinstance(protocol.encode_payload(message["payload"], MAX_BYTES), bytes)
        assert is_topic(message["topic"]) and ("id" not in message or protocol.is_id(message["id"]))


# What a client may say in order, and what of it comes out again

json_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    json_scalars | json_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_texts, inner, max_size=3),
    max_leaves=10,
)
topics = st.from_regex(TOPIC_PATTERN.rstrip("$"), fullmatch=True)  # a $ would let a line break follow
ids = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=128)
seqs = st.integers(0, protocol.MAX_SEQ)
fields_of = {
    "subscribe": st.fixed_dictionaries(
        {"topic": topics},
        optional={
            **{"id": ids, "since": seqs, "epoch": ids, "ack": st.booleans(), "batch": st.booleans()},
            "mode": st.sampled_from(protocol.MODES),
        },
    ),
    "unsubscribe": st.fixed_dictionaries({"topic": topics}, optional={"id": ids}),
    "publish": st.fixed_dictionaries({"topic": topics, "id": ids, "payload": json_values}, optional={"seq": seqs}),
    "ack": st.fixed_dictionaries({"acks": st.dictionaries(topics, seqs, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"topic": topics, "seq": seqs})
    | st.fixed_dictionaries({"id": ids}),
    "auth": st.fixed_dictionaries({"token": st.text(min_size=1)}, optional={"id": ids}),
}


def fields_that_make(frame):
    """The fields that make this frame."""
    if isinstance(frame, Ack):
        return {"type": "ack", "acks": frame.positions}
    if isinstance(frame, Publish):
        return {"type": "publish", **asdict(frame), "payload": orjson.loads(frame.payload)}
    return {"type": {Subscribe: "subscribe", Unsubscribe: "unsubscribe", AckOne: "ack", Auth: "auth"}[type(frame)], **asdict(frame)}


def test_every_command_has_its_strategy():
    assert fields_of.keys() == protocol.PARSERS.keys()


@given(st.sampled_from([*fields_of]).flatmap(lambda kind: fields_of[kind].map(lambda fields: {"type": kind, **fields})))
def test_what_is_in_order_is_understood_as_it_was_said(value):
    frame = protocol.parse(value, 1_000_000)
    again = fields_that_make(frame)
    assert protocol.parse(again, 1_000_000) == frame
    for name, field in value.items():
        if name not in ("topic", "seq") or not isinstance(frame, Ack):
            assert again[name] == field


@given(st.lists(st.tuples(json_values, ids, seqs), min_size=1, max_size=4), topics, ids)
def test_what_was_published_is_what_subscribers_get(rows, topic, epoch):
    messages = [Message(topic, epoch, seq, id, 5, protocol.encode_payload(payload, 1_000_000), "user") for payload, id, seq in rows]
    expected = [{"payload": payload, "id": id, "seq": seq, "ts": 5} for payload, id, seq in rows]
    single, merged = (frame_of(packet) for packet in Batch([event_frame(messages[0]), events_frame(messages)]).packets)
    assert single == {"type": "event", "topic": topic, "epoch": epoch, **expected[0]}
    assert (merged["events"], merged["first"], merged["last"]) == (expected, rows[0][2], rows[-1][2])
    assert "user" not in single and all("user" not in event for event in merged["events"])


@pytest.mark.parametrize(
    ("fields", "frame"),
    [
        ({"type": "auth", "token": "ey", "id": "1"}, Auth("ey", "1")),
        ({"type": "subscribe", "topic": "t"}, Subscribe("t")),
        (
            {"type": "subscribe", "topic": "t", "id": "1", "since": 0, "epoch": "e", "ack": False, "mode": "latest", "batch": True},
            Subscribe("t", "1", 0, "e", False, "latest", True),
        ),
        ({"type": "subscribe", "topic": "t", "id": None, "since": None, "mode": None, "batch": None}, Subscribe("t")),
        ({"type": "unsubscribe", "topic": "t", "id": "1"}, Unsubscribe("t", "1")),
        ({"type": "publish", "topic": "t", "id": "1", "payload": {"a": [1.5, "é"]}}, Publish("t", '{"a":[1.5,"é"]}'.encode(), "1")),
        ({"type": "publish", "topic": "t", "id": "1", "payload": None, "seq": 7}, Publish("t", b"null", "1", 7)),
        ({"type": "ack", "topic": "t", "seq": 2**53 - 1}, Ack({"t": 2**53 - 1})),
        ({"type": "ack", "acks": {"a": 1, "b": 2}}, Ack({"a": 1, "b": 2})),
        ({"type": "ack", "id": "m"}, AckOne("m")),
        ({"type": "ack", "id": "m", "topic": "t", "seq": 3}, Ack({"t": 3})),
    ],
)
def test_every_documented_frame_is_understood(fields, frame):
    assert parse(**fields) == frame


def test_fields_that_nobody_knows_are_passed_over():
    assert parse(type="unsubscribe", topic="t", colour="red") == Unsubscribe("t")


@pytest.mark.parametrize(
    "value", [None, 1, "subscribe", [], [{"type": "subscribe"}], b"x", {}, {"type": None}, {"type": []}, {"type": "event"}]
)
def test_what_is_not_a_frame_is_a_bad_request(value):
    assert code_of(value) == "bad_request"


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": ""},
        {"topic": "a b"},
        {"topic": "t" * 256},
        {"topic": 1},
        {"topic": None},
        {"id": ""},
        {"id": "x" * 129},
        {"id": 1},
        {"id": "a\n"},
        {"id": "\ud800"},
        {"since": -1},
        {"since": 2**53},
        {"since": 1.0},
        {"since": True},
        {"since": "1"},
        {"since": math.nan},
        {"epoch": 1},
        {"ack": 1},
        {"ack": "true"},
        {"mode": "newest"},
        {"mode": []},
        {"batch": 0},
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_a_bad_request_that_names_it(wrong):
    with pytest.raises(ApiError) as caught:
        parse(**{"type": "subscribe", "topic": "t", **wrong})
    assert caught.value.code == "bad_request"
    assert next(iter(wrong)) in caught.value.message


@pytest.mark.parametrize("fields", [{"payload": 1}, {"id": None, "payload": 1}, {"id": "1"}])
def test_a_publish_needs_an_id_and_a_payload(fields):
    assert code_of({"type": "publish", "topic": "t", **fields}) == "bad_request"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"topic": "t"},
        {"seq": 1},
        {"topic": "t", "seq": -1},
        {"topic": "t", "seq": None},
        {"acks": {}},
        {"acks": []},
        {"acks": {"t": "1"}},
        {"acks": {"a b": 1}},
        {"acks": None, "id": "m"},
        {"id": 1},
    ],
)
def test_an_ack_names_positions_or_one_message(fields):
    assert code_of({"type": "ack", **fields}) == "bad_request"


def test_a_payload_is_measured_as_json():
    assert parse(type="publish", topic="t", id="1", payload="x" * (MAX_BYTES - 2)).payload
    assert code_of({"type": "publish", "topic": "t", "id": "1", "payload": "x" * (MAX_BYTES - 1)}) == "payload_too_large"
    assert code_of({"type": "publish", "topic": "t", "id": "1", "payload": "é" * (MAX_BYTES // 2)}) == "payload_too_large"


@pytest.mark.parametrize(
    "payload", [b"x", bytearray(b"x"), {"a": [b"x"]}, [{"deep": {"er": b""}}], "\ud800", 2**64, {1: 2}, {"a": object()}]
)
def test_what_json_cannot_say_is_a_bad_request(payload):
    assert code_of({"type": "publish", "topic": "t", "id": "1", "payload": payload}) == "bad_request"


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_payload_that_is_nested_without_end_is_a_bad_request():
    assert code_of({"type": "publish", "topic": "t", "id": "1", "payload": nested(100_000)}) == "bad_request"


def test_whatever_depth_is_accepted_can_be_sent_again():
    accepted = 0
    for levels in range(200, 300):
        try:
            text = protocol.encode_payload(nested(levels), MAX_BYTES)
        except ApiError:
            break
        accepted = levels
        (packet,) = Batch([events_frame([Message("t", "e", 1, "m", 2, text)])]).packets
        orjson.dumps(["message", frame_of(packet)])
    assert accepted >= 200


def test_an_ack_leaves_out_what_there_is_not():
    assert protocol.ack_frame() == {"type": "ack", "ok": True}
    assert protocol.ack_frame("1", topic="t", seq=0, epoch="e", recovered=False, duplicate=None) == {
        "type": "ack", "id": "1", "ok": True, "topic": "t", "seq": 0, "epoch": "e", "recovered": False,
    }  # fmt: skip


def test_an_error_says_code_message_retryable_and_where():
    error = ApiError("rate_limited", "Slower.", retry_after_ms=50)
    assert protocol.error_frame(error, id="1", topic="t", span=(3, 4)) == {
        "type": "error", "code": "rate_limited", "message": "Slower.", "retryable": True, "retryAfterMs": 50,
        "id": "1", "topic": "t", "from": 3, "to": 4,
    }  # fmt: skip


def test_a_refusal_gives_back_the_id_and_the_topic_as_far_as_they_can_be_read():
    error = ApiError("bad_request")
    assert {"id": "1", "topic": "t"}.items() <= protocol.refusal_frame(error, {"id": "1", "topic": "t", "since": -1}).items()
    for unreadable in ({"id": 1, "topic": "a b"}, {"id": "\ud800"}, None, [], "x"):
        assert set(protocol.refusal_frame(error, unreadable)) == {"type", "code", "message", "retryable"}
