"""So many a second on average, so many at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.realtime.buckets import Bucket, MemoryBuckets, Rate


def test_a_burst_passes_and_then_the_rate_holds():
    bucket = Bucket(Rate.of("50/second", 100), 0)
    assert [bucket.take(0) for _ in range(100)] == [0] * 100
    assert 20 <= bucket.take(0) <= 21
    assert bucket.take(21) == 0
    assert bucket.take(21) > 0


@pytest.mark.parametrize(("text", "burst"), [("200/second", 200), ("600/minute", 10), ("6/minute", 1), ("100 per hour", 1)])
def test_without_a_burst_of_its_own_a_bucket_holds_a_second(text, burst):
    assert Rate.of(text).burst == burst


def test_a_request_for_more_than_the_bucket_holds_is_served_from_a_full_one_and_paid_for_afterwards():
    bucket = Bucket(Rate.of("10/second"), 0)
    assert bucket.take(0, 30) == 0
    assert bucket.take(2000) > 0
    assert bucket.take(2200) == 0


def test_a_clock_that_goes_back_gives_nothing_and_breaks_nothing():
    bucket = Bucket(Rate.of("1/second", 1), 10_000)
    assert bucket.take(10_000) == 0
    assert bucket.take(0) > 0
    assert bucket.take(1001) == 0


@given(st.lists(st.integers(0, 300), max_size=200))
def test_never_more_than_the_burst_and_the_rate_and_who_waits_as_told_is_served(pauses):
    bucket, now = Bucket(Rate.of("50/second", 10), 0), 0
    for taken, pause in enumerate(pauses, 1):
        now += pause
        wait_ms = bucket.take(now)
        if wait_ms:
            now += wait_ms
            assert bucket.take(now) == 0
        assert taken <= 10 + now * 50 / 1000 + 1


def test_each_name_has_a_bucket_of_its_own_and_the_least_used_is_forgotten():
    buckets = MemoryBuckets(Rate.of("1/second"), max_buckets=2)
    assert buckets.take("a", 0) == 0
    assert buckets.take("b", 0) == 0
    assert buckets.take("a", 0) > 0
    assert buckets.take("c", 0) == 0
    assert buckets.take("b", 0) == 0
    assert buckets.take("c", 0) > 0
