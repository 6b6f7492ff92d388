"""Milliseconds, datetimes and texts, there and back."""

import time
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from app.clock import iso, system_clock, to_datetime, to_ms

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


def test_a_text_is_what_javascript_writes():
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_767_323_045_006) == "2026-01-02T03:04:05.006Z"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"
