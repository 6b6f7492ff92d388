"""The fast way and the schema of record's way are one: same events, same rejections, same errors."""

import codecs
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ApiError
from app.telemetry import damaged_json, fast_batch
from app.telemetry.batch import Batch, read_batch
from app.telemetry.damaged_json import decode_batch
from app.telemetry.fast_batch import read_batch_bytes
from tests.apps import NOW

PAGE = {"type": "page", "name": "/home"}
FULL = {**PAGE, "ts": NOW - 5, "props": {"a": 1, "b": [1.5, None, {"c": "d"}]}, "eventId": "x", "userId": 7, "user": {"plan": "pro"}}


def without_chance(outcome):
    """Fresh ids are random, so they are compared by the time and the count that they carry."""
    if isinstance(outcome, Batch):
        for event in outcome.events:
            if not event.id.startswith("e"):
                event.id = event.id[:12] + event.id[28:]
    return outcome


def outcome_of(read, body, default_type):
    try:
        return without_chance(read(body, NOW, 5, default_type))
    except ApiError as error:
        return error.code, [row["path"] for row in error.details or ()]


def both(body, default_type=None):
    slow = outcome_of(
        lambda text, now, max_events, type_: read_batch(decode_batch(text, max_events), now, max_events, type_), body, default_type
    )
    assert outcome_of(read_batch_bytes, body, default_type) == slow
    return slow


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
keys = st.text(max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8)
clocks = [NOW, NOW - 0.5, NOW // 1000, NOW / 1000, NOW * 1000, NOW * 10**6, 10**10, 0, -1, 2**60, True, 12_345.6, 946_684_799_999]
times = [
    "",
    " 1764335000.123",
    "2026-11-28 10:00:00 UTC",
    "1999-12-31T23:59:59Z",
    "soon",
    "2025-10-09T00:00:00Z",
    "2025-10-09",
    "2025-10-09T08:53:20z",
    "2025-10-09T08:52:60Z",
    str(NOW),
    "Thu, 09 Oct 2025 08:53:20 GMT",
]
moments = st.sampled_from(clocks + times) | values
texts = st.text(max_size=300) | values
EVENT_FIELDS = {
    "type": st.sampled_from(["page", "event", "error", "api", "perf", "other", None]) | values,
    "name": texts,
    "ts": moments,
    "props": st.dictionaries(keys, values, max_size=4) | values,
    "eventId": texts | st.integers(),
    "app": texts,
    "release": texts,
    "userId": texts | st.integers(),
    "user": st.dictionaries(keys, values, max_size=3) | values,
    "extra": values,
}
MINIMAL = {"type": st.just("page"), "name": st.just("n")}
likely_events = st.fixed_dictionaries(MINIMAL, optional={name: field for name, field in EVENT_FIELDS.items() if name not in MINIMAL})
events = likely_events | st.fixed_dictionaries({}, optional=EVENT_FIELDS) | values
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "app": st.just("web") | texts, "env": texts, "sessionId": texts | st.integers(), "sentAt": moments,
        "user": EVENT_FIELDS["user"], "events": st.lists(events, max_size=6) | values,
    },
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(body=envelopes | values, default_type=st.sampled_from([None, "perf"]), ascii_only=st.booleans())
def test_for_any_json_both_ways_agree(body, default_type, ascii_only):
    both(json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"), default_type)


@settings(max_examples=500, deadline=None)
@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE-+ \\untrfalsd/', max_size=60).map(str.encode))
def test_for_any_bytes_both_ways_agree(body):
    both(body)


@pytest.mark.parametrize(
    "event",
    [
        {**PAGE, "props": {"a": 2**63}},
        {**PAGE, "props": {"a": 2**64}},
        {**PAGE, "props": {"a": [-(2**63) - 1]}},
        {**PAGE, "user": {"a": 2**63}},
        {**PAGE, "user": {"a": ["x" * 8_000, 2**63, "y" * 170]}},
        {**PAGE, "props": ""},
        {**PAGE, "props": []},
        {**PAGE, "props": {"a\0": 1}},
        {**PAGE, "props": {"a": "x" * 32_757}},
        {**PAGE, "props": {"a": "x" * 32_770}},
        {**PAGE, "props": {"a": "\x01" * 6_000}},
        {**PAGE, "props": {"n" * 200 + str(i): i for i in range(300)}},
        {**PAGE, "user": {"a": "x" * 8_200}},
        {**PAGE, "userId": 2**70},
        {**PAGE, "ts": 253_402_300_800_000},
        {**PAGE, "ts": 1e300},
        {**PAGE, "eventId": 5},
    ],
)
def test_at_the_limits_both_ways_agree(event):
    both(json.dumps({"app": "web", "events": [PAGE, event, PAGE]}).encode())


def test_half_an_emoji_is_mended_both_ways():
    (event,) = both(rb'{"app":"web","events":[{"type":"event","name":"cut \ud83d"}]}').events
    assert event.name == "cut \N{REPLACEMENT CHARACTER}"


def test_a_good_batch_never_reaches_the_slow_way(monkeypatch):
    monkeypatch.setattr(fast_batch, "read_batch", None)
    monkeypatch.setattr(fast_batch, "judge", None)
    envelope = {"app": "web", "userId": 5, "sentAt": "2025-10-09T00:00:00Z", "user": {"a": 1}}
    body = {**envelope, "events": [FULL, {"name": "lcp", "ts": NOW - 0.5}]}
    assert len(read_batch_bytes(json.dumps(body).encode(), NOW, 5, "perf").events) == 2


def test_good_events_that_override_the_envelope_are_not_taken_one_by_one(monkeypatch):
    monkeypatch.setattr(fast_batch, "decode_event", None)
    body = {"app": "web", "sessionId": "s", "env": "e", "events": [PAGE, {**PAGE, "sessionId": 7}, {**PAGE, "app": "shop", "userId": "u"}]}
    events = read_batch_bytes(json.dumps(body).encode(), NOW, 5).events
    wheres = [(event.app, event.env, event.user_id, event.session_id) for event in events]
    assert wheres == [("web", "e", None, "s"), ("web", "e", None, "7"), ("shop", "e", "u", "s")]


def test_one_bad_event_sends_only_itself_the_slow_way(monkeypatch):
    monkeypatch.setattr(fast_batch, "read_batch", None)
    batch = read_batch_bytes(json.dumps({"app": "web", "events": [FULL, {"type": "page"}, PAGE]}).encode(), NOW, 5)
    assert (len(batch.events), [row["index"] for row in batch.rejected]) == (2, [1])


def test_an_envelope_to_be_adjusted_does_not_make_its_good_events_slow(monkeypatch):
    monkeypatch.setattr(fast_batch, "judge", None)
    monkeypatch.setattr(fast_batch, "read_batch", None)
    body = {"app": "web", "userId": "", "release": "r" * 200, "sentAt": "soon", "events": [FULL, PAGE]}
    batch = read_batch_bytes(json.dumps(body).encode(), NOW, 5)
    assert len(batch.events) == 2
    assert [row["path"] for row in batch.adjusted] == ["release", "userId", "sentAt"]


def test_a_byte_order_mark_is_passed_over_and_named():
    batch = read_batch_bytes(codecs.BOM_UTF8 + json.dumps({"app": "web", "events": [PAGE]}).encode(), NOW, 5)
    assert (len(batch.events), [row["path"] for row in batch.adjusted]) == (1, [""])


DAMAGED = {
    "deep": b'{"a":' + b"[" * 1023 + b"]" * 1023 + b"}",
    "very deep": b'{"a":' + b'{"b":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    "beyond doubles": b'{"a":1e309}',
    "beyond doubles, whole": b'{"a":1' + b"0" * 400 + b"}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":[-Infinity]}',
    "no UTF-8": b'{"a":"\xff"}',
    "a bare newline": b'{"a":"one\ntwo"}',
    "no escape": rb'{"a":"\x41"}',
    "a comma too many": b'{"a":1,}',
    "quotes": b'{"a":"say "hi" now"}',
}


@pytest.mark.parametrize("props", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_json_inside_one_event_costs_only_that_event(props):
    event, bad = json.dumps(FULL).encode(), b'{"type":"page","name":"n","props":%b}' % props
    batch = both(b'{ "app" : "web", "events" : [%b ,%b, %b, {"type":"page","name":"]{"}], "more": [1] }' % (event, bad, event))
    assert [row["index"] for row in batch.rejected] == [1]
    assert [event.name for event in batch.events] == ["/home", "/home", "]{"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"app":"web","events":[{"type":"page","name":"n"},{"type":"pa',
        b'{"app":"web","events":[{"type":"page","name":"n"},]}',
        b'{"app":NaN,"events":[{"type":"page","name":"n"}]}',
        b'{"app":"web","x":{"events":[NaN]}}',
        b'{"app":"web","events":[NaN]',
        b'["events",[NaN]]',
        b'{"app":"web","events" [NaN]}',
    ],
    ids=["cut off", "a comma too many", "the envelope", "deeper", "not closed", "a list", "no colon"],
)
def test_what_is_no_json_outside_of_events_is_no_batch(body):
    assert both(body)[0] == "bad_request"


def test_too_many_events_are_counted_before_any_is_decoded():
    assert both(b'{"app":"web","events":[NaN,1,2,3,4,5]}')[0] == "payload_too_large"


@pytest.mark.parametrize(
    "events",
    [b'{"a":NaN},' * 40_000, b"NaN," * 100_000, b'"","",' * 40_000, b"[1],{}," * 10_000],
    ids=["NaN in objects", "NaN", "strings", "leaves"],
)
def test_a_damaged_batch_is_read_no_further_than_the_first_event_too_many(events, monkeypatch):
    places = []
    refuse = damaged_json.refuse_too_many
    monkeypatch.setattr(damaged_json, "refuse_too_many", lambda sent, max_events: (places.append(sent), refuse(sent, max_events)))
    with pytest.raises(ApiError) as refused:
        damaged_json.split(b'{"app":"a","events":[%b{}]}' % events, 5)
    assert (refused.value.code, places[-1]) == ("payload_too_large", 6)


@pytest.mark.parametrize(
    "body",
    [
        b'{"app":"a","events":[{"a":"' + rb"\"" * 100_000,
        b'{"app":"a","events":[' + rb"\"" * 100_000,
        b'{"app":"a' + rb"\"" * 100_000,
        b'{"app":"a","events":[' + b'{"a":[' * 40_000,
        b'{"app":"a","events":[' + b'"" ' * 100_000 + b"NaN]}",
    ],
    ids=["an open string", "between events", "in the envelope", "open brackets", "strings without commas"],
)
def test_no_text_takes_quadratic_time_to_be_split(body):
    started = time.thread_time()
    damaged_json.split(body, 1000)
    assert time.thread_time() - started < 1  # it was minutes


def test_an_events_key_that_is_no_list_or_stands_deeper_is_passed_over():
    assert damaged_json.split(b'{"x":{"events":[1,2]},"y":"events","events":[NaN,[[3]]],"z":1}', 5).events == [b"NaN", b"[[3]]"]


DESCRIBING = {
    "a number beyond doubles": (b'"user":{"a":1e400}', "user"),
    "NaN": (b'"user":{"a":NaN}', "user"),
    "deep": (b'"user":' + b'{"a":' * 1100 + b"1" + b"}" * 1100, "user"),
    "a whole number of 400 digits": (b'"userId":1' + b"0" * 400, "userId"),
    "a release of as many": (b'"release":1' + b"0" * 400, "release"),
    "no UTF-8": (b'"env":"\xff"', "env"),
    "a quote too many": (b'"sessionId":"a"b""', "sessionId"),
}


@pytest.mark.parametrize("field, path", DESCRIBING.values(), ids=DESCRIBING)
def test_a_field_that_only_describes_and_is_no_json_costs_itself_and_is_named(field, path):
    on_batch = both(b'{%b,"app":"web", "events":[{"type":"page","name":"n"}]}' % field)
    assert (len(on_batch.events), on_batch.rejected, [row["path"] for row in on_batch.adjusted]) == (1, [], [path])
    on_event = both(b'{"app":"web","events":[{"type":"page","name":"n"} , {"type":"page", %b ,"name":"n"}]}' % field)
    assert (len(on_event.events), on_event.rejected, [row["path"] for row in on_event.adjusted]) == (2, [], [f"events.1.{path}"])


def test_a_sent_at_beyond_doubles_is_absent_and_named():
    batch = both(b'{"app":"web","sentAt":1e309,"events":[{"type":"page","name":"n"}]}')
    assert (len(batch.events), [row["path"] for row in batch.adjusted]) == (1, ["sentAt"])


@pytest.mark.parametrize("value", [b"NaN", b"[" * 2000 + b"]" * 2000, b"1e400"], ids=["NaN", "deep", "beyond doubles"])
def test_an_unknown_field_that_is_no_json_is_dropped_like_any_other(value):
    batch = both(b'{"x":%b,"app":"web","events":[{"type":"page","name":"n"}]}' % value)
    assert (len(batch.events), batch.adjusted) == (1, [])


@pytest.mark.parametrize("field", [b'"app"', b'"type"', b'"name"', b'"ts"', b'"props"', b'"eventId"'])
def test_a_field_that_says_what_an_event_is_costs_the_event_where_it_is_no_json(field):
    batch = both(b'{"app":"web","events":[{"type":"page","name":"n",%b:NaN},{"type":"page","name":"n"}]}' % field)
    assert (len(batch.events), [row["index"] for row in batch.rejected]) == (1, [0])


def test_an_object_with_more_members_than_anybody_needs_is_not_read_value_by_value():
    assert both(b'{"app":"web",%b"x":NaN,"events":[]}' % b"".join(b'"k%d":1,' % n for n in range(100)))[0] == "bad_request"


def test_nul_characters_after_the_json_are_passed_over_and_named():
    batch = read_batch_bytes(b'{"app":"web","events":[{"type":"page","name":"n"}]}\0\0', NOW, 5)
    assert (len(batch.events), [row["path"] for row in batch.adjusted]) == (1, [""])


@pytest.mark.parametrize("encoding, word", [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("latin-1", "Latin-1")])
def test_another_encoding_is_refused_by_its_name(encoding, word):
    with pytest.raises(ApiError) as refused:
        read_batch_bytes('{"app":"caf\u00e9","events":[]}'.encode(encoding), NOW, 5)
    assert word in refused.value.message and "UTF-8" in refused.value.message
