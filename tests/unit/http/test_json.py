"""JSON in and out; what cannot be read is a bad request."""

import codecs
import json
from datetime import datetime

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.http.json import MAX_CONTAINERS, FastJson, decode_json

PROVIDER = FastJson(Flask(__name__))

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_every_value_survives_the_way_there_and_back(value):
    assert decode_json(PROVIDER.dumps(value)) == value
    assert decode_json(json.dumps(value)) == value


def test_half_of_a_surrogate_pair_becomes_a_replacement_and_not_an_error():
    assert decode_json(r'{"name": "cut \ud83d", "\udc00": ["\ud83d\ude00"]}') == {"name": "cut \ufffd", "\ufffd": ["\U0001f600"]}


surrogates = st.text(alphabet=st.characters(codec=None) | st.characters(categories=["Cs"]) | st.sampled_from('\\"ud8cf'), max_size=30)


@given(st.recursive(surrogates, lambda inner: st.lists(inner) | st.dictionaries(surrogates, inner, max_size=2), max_leaves=5))
def test_halves_of_pairs_are_repaired_wherever_they_stand_and_nothing_else_is_changed(value):
    repaired = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert decode_json(json.dumps(value)) == json.loads(repaired)


@pytest.mark.parametrize("text", [r'"\\ud800"', r'"\\\\ud800 \ud83d\ude00"', r'["\u005cud800"]'])
def test_an_escaped_backslash_before_a_u_begins_no_escape(text):
    assert decode_json(text) == json.loads(text)
    assert decode_json(f'[{text},"\\ud800"]') == [json.loads(text), "\ufffd"]


def test_a_byte_order_mark_is_passed_over_wherever_json_comes_in():
    assert decode_json(codecs.BOM_UTF8 + b'{"a":1}') == decode_json('\ufeff{"a":1}') == PROVIDER.loads('\ufeff{"a":1}') == {"a": 1}


@pytest.mark.parametrize("half", ["", '"\\ud800",'])
def test_a_text_has_a_bound_on_arrays_and_objects_and_brackets_in_strings_are_none(half):
    with pytest.raises(ApiError) as refused:
        decode_json(f"[{half}{'[],' * MAX_CONTAINERS}0]")
    assert refused.value.code == "payload_too_large"
    assert len(decode_json(f"[{half}{'[],' * (MAX_CONTAINERS - 1)}0]")) >= MAX_CONTAINERS
    text = r"[\"[{\\" * MAX_CONTAINERS
    assert decode_json(f'[{half}"{text}"]')[-1] == json.loads(f'"{text}"')


@pytest.mark.parametrize(
    "text",
    ["", "{", "nope", "NaN", '{"a": Infinity}', "[1,]", "{'a': 1}", b"\xff", b"\xff\xfe{\x00}\x00", '"\\ud800', "[" * 50_000,
     '"\\ud800"[', '["\\ud800", NaN]', '["\\ud800",' + "[" * 50_000],
    ids=lambda text: ascii(text[:12]),
)  # fmt: skip
def test_what_is_no_json_is_a_bad_request(text):
    with pytest.raises(ApiError) as refused:
        decode_json(text)
    assert refused.value.code == "bad_request"


@given(st.binary() | st.text())
def test_any_bytes_are_a_value_or_a_bad_request(text):
    try:
        decode_json(text)
    except ApiError as error:
        assert error.code == "bad_request"


def test_a_type_that_json_does_not_know_becomes_its_text():
    assert json.loads(PROVIDER.dumps({"id": 2j, "at": datetime(2026, 1, 2), 7: "seven"})) == {
        "id": "2j", "at": "2026-01-02T00:00:00Z", "7": "seven",
    }  # fmt: skip
