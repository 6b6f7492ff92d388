"""How fast the drainer works: slower than live traffic, below its limit, and slower when MongoDB is slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.drain.pace import FIRST_WAIT_S, FULL_CHUNK, LONGEST_WAIT_S, SMALLEST_CHUNK, Pace


def test_while_live_events_arrive_it_rests_three_times_as_long_as_it_worked():
    assert Pace(10**9).worked(500, 0.1, is_busy=True) >= 0.3


def test_without_live_events_it_rests_a_fifth_of_the_time():
    assert Pace(10**9).worked(500, 0.1, is_busy=False) == pytest.approx(0.025)


@given(events=st.integers(0, 500), took=st.floats(0, 10), busy=st.booleans(), limit=st.integers(1, 100_000))
def test_it_never_exceeds_its_limit_and_never_rests_a_negative_time(events, took, busy, limit):
    rest = Pace(limit).worked(events, took, busy)
    assert rest >= 0
    assert events <= limit * (took + rest) * 1.000001 + 1e-6


def test_the_waits_double_up_to_the_longest_and_restart_after_a_success():
    pace = Pace(10_000)
    assert [pace.failed() for _ in range(6)] == [FIRST_WAIT_S, 1.0, 2.0, 4.0, LONGEST_WAIT_S, LONGEST_WAIT_S]
    pace.worked(1, 0.01, is_busy=False)
    assert pace.failed() == FIRST_WAIT_S


def test_chunks_shrink_after_failures_and_grow_again_after_successes():
    pace = Pace(10_000)
    for _ in range(10):
        pace.failed()
    assert pace.chunk == SMALLEST_CHUNK
    for _ in range(10):
        pace.worked(1, 0.01, is_busy=False)
    assert pace.chunk == FULL_CHUNK
