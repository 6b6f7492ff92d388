"""Milliseconds, datetimes and texts, there and back."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import epoch_unit, from_iso, iso, system_clock, to_datetime, to_ms

YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


def test_the_system_clock_counts_milliseconds_since_1970():
    assert abs(system_clock() - time.time() * 1000) < 1000


@given(st.integers(YEAR_1, YEAR_9999))
def test_every_millisecond_survives_the_way_there_and_back(ms):
    assert to_ms(to_datetime(ms)) == ms


def test_an_aware_datetime_counts_with_its_offset():
    assert to_ms(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0
    assert to_ms(datetime(1970, 1, 1)) == 0


def test_microseconds_are_cut_and_not_rounded_up():
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
def test_what_is_no_iso_8601_is_none(text):
    assert from_iso(text) is None or from_iso(text) > YEAR_9999


@pytest.mark.parametrize(
    "value, name", [(10**9, "seconds"), (10**10 - 0.5, "seconds"), (10**15, "microseconds"), (10**19 - 1, "nanoseconds")]
)
def test_another_unit_is_known_by_its_size(value, name):
    assert epoch_unit(value).name == name


@pytest.mark.parametrize("value", [0, 10**9 - 1, 10**10, 1_767_323_045_006, 10**15 - 1, 10**16, 10**19, -(10**9)])
def test_what_may_be_milliseconds_or_nothing_is_no_other_unit(value):
    assert epoch_unit(value) is None


def test_a_text_is_what_javascript_writes():
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_767_323_045_006) == "2026-01-02T03:04:05.006Z"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"
