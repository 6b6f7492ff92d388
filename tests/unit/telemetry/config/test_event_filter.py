"""Which events are taken: patterns, their order of precedence, and that an answer still counts every event that was sent."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.batch import Batch, read_batch
from app.telemetry.config.event_filter import AppFilter, EventFilter
from tests.apps import NOW


def app_filter(sample_rate=1.0, allow=(), deny=()):
    return AppFilter(sample_rate, allow, deny)


@pytest.mark.parametrize(
    "pattern, name, fits",
    [("a", "a", True), ("a", "ab", False), ("A", "a", False), ("a*", "a", True), ("a*", "ab", True), ("*a", "ba", True), ("*", "", True),
     ("a*b", "ab", True), ("a*b", "a", False), ("ab*ba", "aba", False), ("a*b*c", "a-b-c", True), ("a*b*c", "acb", False),
     ("a.*", "axb", False), ("**", "x", True), ("*ab*", "aab", True), ("[a]", "a", False)],
)  # fmt: skip
def test_a_pattern_is_a_name_with_stars_for_anything(pattern, name, fits):
    assert app_filter(deny=[pattern]).takes(name) is not fits
    assert app_filter(allow=[pattern]).takes(name) is fits


@given(pattern=st.text(alphabet="ab*", max_size=8), name=st.text(alphabet="ab", max_size=10))
def test_any_pattern_means_what_the_regular_expression_means(pattern, name):
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) is not None
    assert app_filter(allow=[pattern]).takes(name) is expected


def test_a_pattern_made_to_be_slow_is_not():
    assert app_filter(deny=["*a" * 100 + "b"]).takes("a" * 256) is True


def test_deny_wins_over_allow_and_an_empty_allow_allows_all():
    both = app_filter(allow=["ui.*", "page"], deny=["ui.debug*"])
    assert [both.takes(name) for name in ("ui.click", "ui.debug.x", "page", "other")] == [True, False, True, False]
    assert app_filter(deny=["x"]).takes("anything")
    assert app_filter().is_open and not app_filter(deny=["x"]).is_open


def test_a_sample_rate_of_zero_takes_nothing_and_any_other_is_left_to_the_sdk():
    assert not app_filter(sample_rate=0).takes("x")
    assert app_filter(sample_rate=0.001).is_open


def test_an_answer_stays_the_same_however_many_names_came_between():
    one = app_filter(deny=["x"])
    assert [one.takes(name) for name in ("x", *map(str, range(25_000)), "x", "7")].count(False) == 2


def read(*events):
    return read_batch({"app": "web", "events": list(events)}, NOW, 100)


def event(name, **fields):
    return {"type": "event", "name": name, **fields}


def test_each_denied_event_is_rejected_at_its_own_index_among_those_that_were_wrong_already():
    batch = read(5, event("debug.a"), event("good"), {"type": "event"}, event("debug.b"), event("good"))
    answer = EventFilter(app_filter(deny=["debug.*"]), {}).admit(batch)
    assert [event.name for event in answer.events] == ["good", "good"]
    codes = [(row["index"], row["code"]) for row in answer.rejected]
    assert codes == [(0, "bad_request"), (1, "denied"), (3, "bad_request"), (4, "denied")]
    assert answer.rejected[1]["message"] == "The configuration of web does not take events of this name."


def test_an_event_is_judged_by_the_configuration_of_its_own_application():
    batch = read(event("a"), event("a", app="shop"))
    answer = EventFilter(app_filter(), {"shop": app_filter(sample_rate=0)}).admit(batch)
    assert [event.app for event in answer.events] == ["web"]
    assert answer.rejected == [{"index": 1, "code": "denied", "message": "The configuration of shop takes no events: its sampleRate is 0."}]


def test_a_batch_of_which_all_is_taken_is_the_same_batch():
    batch = read(event("a"), 5)
    assert EventFilter(app_filter(deny=["x"]), {}).admit(batch) is batch
    assert EventFilter(app_filter(), {"web": app_filter()}).takes_all


@given(st.lists(st.sampled_from([event("a"), event("b"), event("c", app="shop"), 5, {"type": "event"}]), max_size=12))
def test_saved_plus_rejected_is_sent_whatever_is_denied(sent):
    answer = EventFilter(app_filter(deny=["b"]), {"shop": app_filter(allow=["x"])}).admit(read(*sent))
    assert isinstance(answer, Batch)
    assert len(answer.events) + len(answer.rejected) == len(sent)
    assert sorted(row["index"] for row in answer.rejected) == [n for n, row in enumerate(sent) if row != event("a")]
