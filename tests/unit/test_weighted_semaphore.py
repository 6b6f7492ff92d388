"""What is held never exceeds the capacity, and those that wait are admitted in their order."""

import gevent
import pytest

from app.weighted_semaphore import WeightedSemaphore


@pytest.fixture
def started():
    """Call it with a semaphore and weights: the greenlets, and the list of those that were admitted."""
    greenlets, admitted = [], []

    def start(semaphore, *weights):
        def work(name, weight):
            with semaphore.hold(weight):
                admitted.append(name)
                gevent.sleep(60)

        greenlets.extend(gevent.spawn(work, name, weight) for name, weight in enumerate(weights))
        gevent.sleep(0.001)
        return greenlets, admitted

    yield start
    gevent.killall(greenlets)


def test_as_many_are_admitted_as_the_capacity_has_room_for(started):
    assert started(WeightedSemaphore(10), 4, 6, 1)[1] == [0, 1]


def test_a_small_one_does_not_pass_a_large_one_that_came_before(started):
    greenlets, admitted = started(WeightedSemaphore(10), 6, 8, 1)
    assert admitted == [0]
    greenlets[0].kill()
    gevent.sleep(0.001)
    assert admitted == [0, 1, 2]


def test_more_than_the_capacity_waits_until_it_is_alone(started):
    greenlets, admitted = started(WeightedSemaphore(10), 1, 1000)
    assert admitted == [0]
    greenlets[0].kill()
    gevent.sleep(0.001)
    assert admitted == [0, 1]


def test_one_that_is_killed_while_it_waits_makes_room_for_those_behind_it(started):
    greenlets, admitted = started(WeightedSemaphore(10), 9, 9, 1)
    greenlets[1].kill()
    gevent.sleep(0.001)
    assert admitted == [0, 2]
