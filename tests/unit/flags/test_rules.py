"""Decisions of flags: the cases of tests/cases/flags, and properties of all flags and callers."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flags.flag import Flag
from app.flags.rules import DISABLED, RULES, UNKNOWN, Context, Decision, bucket, evaluate
from app.flags.schemas import Moment, RulesSchema, read_record
from app.json_values import to_ms

FOLDER = Path(__file__).parents[2] / "cases" / "flags"
CASES = [case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())]
NOW = 1_760_000_000_000

ids = st.text(min_size=1, max_size=40)
keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,30}", fullmatch=True)
rules = st.fixed_dictionaries({}, optional={"role": st.lists(ids, min_size=1), "percent": st.integers(0, 100) | st.floats(0, 100)})
contexts = st.builds(Context, user_id=st.none() | ids, session_id=st.none() | ids, roles=st.lists(ids).map(tuple))
times = st.none() | st.integers(NOW - 1000, NOW + 1000)
flags = st.builds(Flag, key=keys, enabled=st.booleans(), rules=rules, start_at=times, end_at=times)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_case_file_gets_its_expected_decision(case):
    context = case["context"]
    asked_by = Context(context.get("userId"), context.get("sessionId"), tuple(context.get("roles", ())))
    decision = evaluate(read_record(case["flag"], 0), asked_by, Moment().deserialize(case["now"]))
    assert decision == Decision(**case["expected"])


@given(flags, contexts)
def test_the_same_flag_and_context_always_get_the_same_decision(flag, context):
    assert evaluate(flag, context, NOW) == evaluate(flag, context, NOW)


@given(keys, contexts, st.integers(0, 100), st.integers(0, 100))
def test_a_higher_percentage_only_adds_users(key, context, one, other):
    lower, higher = sorted((one, other))
    in_lower = evaluate(Flag(key, True, {"percent": lower}), context, NOW).on
    in_higher = evaluate(Flag(key, True, {"percent": higher}), context, NOW).on
    assert in_higher or not in_lower


@given(flags, contexts, rules)
def test_one_more_rule_only_removes_users(flag, context, more):
    with_more = Flag(flag.key, flag.enabled, {**more, **flag.rules}, flag.start_at, flag.end_at)
    assert evaluate(flag, context, NOW).on or not evaluate(with_more, context, NOW).on


@given(flags, contexts)
def test_a_disabled_flag_and_a_flag_outside_its_window_are_off(flag, context):
    if not flag.enabled or not (flag.start_at or 0) <= NOW < (flag.end_at or NOW + 1):
        assert evaluate(flag, context, NOW) == Decision(False, DISABLED)


@given(keys, ids)
def test_a_bucket_is_a_number_from_1_to_100(key, somebody):
    assert 1 <= bucket(key, somebody) <= 100


def test_an_id_with_a_lone_surrogate_has_a_bucket():
    assert 1 <= bucket("f", "\ud83d") <= 100


def test_a_percentage_holds_for_about_that_share_of_users():
    for percent in (1, 10, 50, 90):
        inside = sum(evaluate(Flag("checkout", True, {"percent": percent}), Context(f"user-{n}"), NOW).on for n in range(10_000))
        assert abs(inside / 100 - percent) < 1.5


def test_two_flags_choose_their_users_independently():
    """Half of the half: people who are in one flag must not be the same ones who are in every other."""
    both = sum(bucket("one", f"user-{n}") <= 50 and bucket("another", f"user-{n}") <= 50 for n in range(10_000))
    assert abs(both / 100 - 25) < 1.5


def test_fractions_of_a_percent_are_ignored():
    people = [Context(f"user-{n}") for n in range(1000)]
    whole, more = Flag("f", True, {"percent": 12}), Flag("f", True, {"percent": 12.9})
    assert [evaluate(whole, one, NOW) for one in people] == [evaluate(more, one, NOW) for one in people]


def test_an_unknown_rule_never_holds():
    flag = Flag("f", True, {"role": ["admin"], "moonPhase": "full"})
    assert evaluate(flag, Context("u", roles=("admin",)), NOW) == Decision(False, UNKNOWN)


def test_the_schema_has_one_field_for_each_rule():
    assert RulesSchema().fields.keys() == RULES.keys()


def test_a_window_is_compared_in_utc():
    assert Moment().deserialize("2026-01-01T01:00:00+01:00") == to_ms(datetime(2026, 1, 1))
