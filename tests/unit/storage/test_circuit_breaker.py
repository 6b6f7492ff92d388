"""After a failure nobody asks for a while, then one does."""

import pytest

from app.storage.circuit_breaker import FIRST_REST_MS, LONGEST_REST_MS, Breaker
from tests.apps import NOW


def test_the_rest_doubles_up_to_its_longest():
    breaker, now, rests = Breaker(), NOW, []
    for _ in range(8):
        breaker.failed(now)
        rest = next(ms for ms in range(0, LONGEST_REST_MS + 1, 100) if breaker.lets_through(now + ms))
        rests.append(rest)
        now += rest
    assert rests == [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000]


def test_those_who_shared_the_first_failure_do_not_lengthen_the_rest():
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(NOW)
    assert breaker.lets_through(NOW + FIRST_REST_MS)


@pytest.mark.parametrize("jump", [-86_400_000, 86_400_000])
def test_a_clock_that_jumps_never_lengthens_the_rest(jump):
    breaker = Breaker()
    breaker.failed(NOW)
    assert breaker.lets_through(NOW + jump)


def test_a_success_closes_it_whatever_came_before():
    breaker = Breaker()
    assert breaker.failed(NOW) is True
    assert breaker.failed(NOW) is False
    assert breaker.succeeded() is True
    assert breaker.succeeded() is False
    assert breaker.lets_through(NOW)
