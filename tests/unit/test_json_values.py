"""Timestamps and numbers in JSON: what is accepted, what is not, and how a timestamp is rendered."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.json_values import (
    MAX_TIMESTAMP_MS,
    epoch_unit,
    from_iso,
    is_number,
    is_timestamp,
    is_whole_number,
    parse_timestamp,
    timestamp_mistake,
    to_datetime,
    to_iso,
    to_ms,
)

YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


@given(st.integers(YEAR_1, YEAR_9999))
def test_every_millisecond_survives_the_conversion_to_a_datetime_and_back(ms):
    assert to_ms(to_datetime(ms)) == ms


def test_an_aware_datetime_counts_with_its_offset():
    assert to_ms(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0
    assert to_ms(datetime(1970, 1, 1)) == 0


def test_microseconds_are_truncated():
    assert to_ms(datetime(1970, 1, 1, 0, 0, 0, 1999)) == 1
    assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_999)) == -1


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:59:60Z",
        "2016-12-31t23:59:60z",
        "2016-12-31T23:59:60.5Z",
        "2017-01-01T01:59:60+02:00",
        "2016-12-31T23:59:60",
        "2017-01-01",
    ],
)
def test_a_leap_second_is_the_first_of_the_next_minute(text):
    assert from_iso(text) == 1_483_228_800_000 + (500 if ".5" in text else 0)


@pytest.mark.parametrize("text", ["", "soon", "2016-12-31T23:60:60Z", "2016-12-31T23:59:61Z", "60", "9999-12-31T23:59:60-14:00", "2" * 41])
def test_a_text_that_is_not_iso_8601_is_rejected(text):
    assert from_iso(text) is None or from_iso(text) > YEAR_9999


@pytest.mark.parametrize(
    "value, name", [(10**9, "seconds"), (10**10 - 0.5, "seconds"), (10**15, "microseconds"), (10**19 - 1, "nanoseconds")]
)
def test_another_unit_is_recognized_by_the_size_of_the_number(value, name):
    assert epoch_unit(value).name == name


@pytest.mark.parametrize("value", [0, 10**9 - 1, 10**10, 1_767_323_045_006, 10**15 - 1, 10**16, 10**19, -(10**9)])
def test_a_number_that_may_be_milliseconds_is_no_other_unit(value):
    assert epoch_unit(value) is None


def test_a_timestamp_is_rendered_as_javascript_does_it():
    assert to_iso(0) == "1970-01-01T00:00:00.000Z"
    assert to_iso(1_767_323_045_006) == "2026-01-02T03:04:05.006Z"
    assert to_iso(-1) == "1969-12-31T23:59:59.999Z"


@pytest.mark.parametrize("value", [0, -1, 1.5, 10**400])
def test_finite_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, False, None, "1", float("nan"), float("inf"), [], {}])
def test_a_bool_a_text_and_a_number_that_is_not_finite_are_no_numbers(value):
    assert not is_number(value)
    assert not is_whole_number(value)
    assert epoch_unit(value) is None
    assert not is_timestamp(value)


def test_a_number_with_a_fraction_is_not_whole():
    assert is_whole_number(5)
    assert not is_whole_number(5.0)


@pytest.mark.parametrize(
    "value, ms",
    [
        (0, 0),
        (1_767_323_045_006, 1_767_323_045_006),
        (1_767_323_045_006.9, 1_767_323_045_006),
        (MAX_TIMESTAMP_MS, MAX_TIMESTAMP_MS),
        ("2026-01-02T03:04:05.006Z", 1_767_323_045_006),
    ],
)
def test_milliseconds_and_iso_8601_are_timestamps(value, ms):
    assert parse_timestamp(value) == ms


@pytest.mark.parametrize("value", [-1, MAX_TIMESTAMP_MS + 1, True, None, "", "soon", "1969-12-31", float("nan"), 10**400])
def test_other_values_and_years_out_of_range_are_no_timestamps(value):
    assert parse_timestamp(value) is None
    assert timestamp_mistake(value) == "Must be epoch milliseconds or an ISO 8601 time between 1970 and 9999."


@pytest.mark.parametrize("value, name", [(1_767_323_045.006, "seconds"), (1_767_323_045_006_007, "microseconds")])
def test_a_timestamp_in_another_unit_is_rejected_with_the_unit_and_the_milliseconds(value, name):
    assert parse_timestamp(value) is None
    assert timestamp_mistake(value) == f"Must be epoch milliseconds; this looks like {name}: 1767323045006 in milliseconds."
