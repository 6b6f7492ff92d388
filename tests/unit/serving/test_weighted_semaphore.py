"""What is held never exceeds the capacity, and those that wait are admitted in their order."""

import gevent
import pytest

from app.serving.weighted_semaphore import WeightedSemaphore


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


@pytest.fixture
def admitted_in_order():
    """Call it with (party, weight) pairs, behind one caller that holds all: the parties in the order of their admission."""
    greenlets = []

    def run(*callers):
        semaphore, admitted = WeightedSemaphore(10), []

        def work(party, weight):
            with semaphore.hold(weight, party):
                admitted.append(party)
                gevent.sleep(0)

        with semaphore.hold(10):
            greenlets.extend(gevent.spawn(work, *caller) for caller in callers)
            gevent.sleep(0.001)
            assert admitted == []
        gevent.joinall(greenlets, timeout=5, raise_error=True)
        return admitted

    yield run
    gevent.killall(greenlets)


def test_one_party_s_queue_keeps_no_other_party_waiting_behind_all_of_it(admitted_in_order):
    assert admitted_in_order(*[("many", 10)] * 5, ("one", 3)) == ["many", "one", *["many"] * 4]


def test_waiting_parties_take_turns(admitted_in_order):
    assert "".join(admitted_in_order(*[("a", 10)] * 3, *[("b", 10)] * 2, ("c", 10))) == "abcaba"


def test_a_large_caller_whose_turn_it_is_is_not_passed_by_small_ones_of_other_parties(admitted_in_order):
    assert admitted_in_order(("small", 6), ("large", 10), ("small", 1), ("other", 1)) == ["small", "large", "other", "small"]


def test_a_party_whose_only_caller_is_killed_leaves_no_queue_behind(started):
    semaphore = WeightedSemaphore(10)
    greenlets, admitted = started(semaphore, 9, 9)
    greenlets[1].kill()
    assert (semaphore._waiting, admitted) == ({}, [0])
