"""How fast the drainer goes: below live traffic, below the ceiling, and slower for a MongoDB that is slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.drain.pace import FIRST_WAIT_S, FULL_CHUNK, LONGEST_WAIT_S, SMALLEST_CHUNK, Pace


def test_it_rests_longer_than_it_worked_while_requests_are_written():
    assert Pace(10**9).worked(500, 0.1, is_busy=True) >= 0.3


def test_alone_it_leaves_a_fifth_of_the_time():
    assert Pace(10**9).worked(500, 0.1, is_busy=False) == pytest.approx(0.025)


@given(events=st.integers(0, 500), took=st.floats(0, 10), busy=st.booleans(), ceiling=st.integers(1, 100_000))
def test_the_ceiling_is_never_passed_and_a_rest_is_never_negative(events, took, busy, ceiling):
    rest = Pace(ceiling).worked(events, took, busy)
    assert rest >= 0
    assert events <= ceiling * (took + rest) * 1.000001 + 1e-6


def test_the_waits_double_up_to_the_longest_and_begin_anew_after_a_success():
    pace = Pace(10_000)
    assert [pace.failed() for _ in range(6)] == [FIRST_WAIT_S, 1.0, 2.0, 4.0, LONGEST_WAIT_S, LONGEST_WAIT_S]
    pace.worked(1, 0.01, is_busy=False)
    assert pace.failed() == FIRST_WAIT_S


def test_after_a_failure_less_is_asked_for_and_more_again_after_a_success():
    pace = Pace(10_000)
    for _ in range(10):
        pace.failed()
    assert pace.chunk == SMALLEST_CHUNK
    for _ in range(10):
        pace.worked(1, 0.01, is_busy=False)
    assert pace.chunk == FULL_CHUNK
