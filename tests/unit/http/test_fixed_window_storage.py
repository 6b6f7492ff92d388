"""Counting without Redis, held beside the memory that the limits library brings."""

import time

import pytest
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from app.http import fixed_window_storage

TEN_A_MINUTE = parse("10/minute")


@pytest.fixture(params=["windows", "memory"])
def storage(request):
    return storage_from_string(f"{request.param}://")


def test_a_window_holds_its_amount_and_no_more(storage):
    limiter = FixedWindowRateLimiter(storage)
    assert [limiter.hit(TEN_A_MINUTE, "ip:1") for _ in range(12)] == [True] * 10 + [False] * 2


def test_callers_are_counted_apart_and_can_be_cleared(storage):
    limiter = FixedWindowRateLimiter(storage)
    limiter.hit(TEN_A_MINUTE, "ip:1")
    assert (limiter.get_window_stats(TEN_A_MINUTE, "ip:1").remaining, limiter.get_window_stats(TEN_A_MINUTE, "ip:2").remaining) == (9, 10)
    limiter.clear(TEN_A_MINUTE, "ip:1")
    assert limiter.get_window_stats(TEN_A_MINUTE, "ip:1").remaining == 10


def test_a_window_says_when_it_ends(storage):
    limiter = FixedWindowRateLimiter(storage)
    limiter.hit(TEN_A_MINUTE, "ip:1")
    assert limiter.get_window_stats(TEN_A_MINUTE, "ip:1").reset_time == pytest.approx(time.time() + 60, abs=2)


def test_a_window_that_has_ended_begins_again(storage):
    assert [storage.incr("k", 0.05) for _ in range(2)] == [1, 2]
    time.sleep(0.06)
    assert storage.get("k") == 0
    assert storage.incr("k", 0.05) == 1


def test_callers_who_went_away_are_forgotten(monkeypatch):
    monkeypatch.setattr(fixed_window_storage, "SWEEP_EVERY_S", 0.0)
    storage = storage_from_string("windows://")
    for caller in range(100):
        storage.incr(f"ip:{caller}", 0.01)
    time.sleep(0.02)
    storage.incr("ip:new", 60)
    assert storage.reset() == 1
