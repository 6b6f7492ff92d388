"""Deadlines in one heap."""

from hypothesis import given
from hypothesis import strategies as st

from app.realtime.timers import SLACK, Timers


def test_what_is_due_is_given_once_in_order():
    timers = Timers()
    for key, at in (("b", 20), ("a", 10), ("c", 30)):
        timers.set(key, at)
    assert list(timers.due(9)) == []
    assert list(timers.due(20)) == ["a", "b"]
    assert list(timers.due(20)) == []
    assert timers.next == 30 and "c" in timers and len(timers) == 1


def test_a_deadline_can_be_moved_both_ways_and_cancelled():
    timers = Timers()
    timers.set("later", 10)
    timers.set("later", 50)
    timers.set("sooner", 50)
    timers.set("sooner", 10)
    timers.set("never", 10)
    timers.cancel("never")
    timers.cancel("unknown")
    assert list(timers.due(10)) == ["sooner"]
    assert list(timers.due(49)) == []
    assert list(timers.due(50)) == ["later"]
    assert timers.next is None


def test_whoever_waits_is_woken_only_for_what_comes_sooner():
    woken = []
    timers = Timers(lambda: woken.append(timers.next))
    timers.set("a", 20)
    timers.set("b", 30)
    timers.set("a", 40)
    timers.set("c", 10)
    assert woken == [20, 10]


def test_a_deadline_set_while_others_are_served_is_kept():
    timers = Timers()
    timers.set("a", 10)
    for key in timers.due(10):
        timers.set(key, 20)
    assert list(timers.due(20)) == ["a"]


steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.sampled_from("abc")),
    st.tuples(st.just("pass"), st.integers(0, 10)),
)


@given(st.lists(steps, max_size=40))
def test_they_behave_like_a_dictionary_that_is_searched(script):
    timers, expected, now = Timers(), {}, 0
    for step, *arguments in script:
        if step == "set":
            timers.set(arguments[0], now + arguments[1])
            expected[arguments[0]] = now + arguments[1]
        elif step == "cancel":
            timers.cancel(*arguments)
            expected.pop(arguments[0], None)
        else:
            now += arguments[0]
            due = sorted(key for key, at in expected.items() if at <= now)
            assert sorted(timers.due(now)) == due
            for key in due:
                del expected[key]
        assert timers.next is None if not expected and timers.next is None else timers.next <= min(expected.values(), default=10**9)


def test_some_deadlines_are_brought_forward_and_the_others_stay():
    timers = Timers()
    timers.set(("ack", "a"), 1000)
    timers.set(("ack", "b"), 1500)
    timers.set(("token", "a"), 1200)
    timers.cancel(("ack", "b"))
    timers.bring_forward(900, lambda key: key[0] == "ack")
    assert (timers.next, list(timers.due(100))) == (100, [("ack", "a")])
    assert (list(timers.due(1199)), list(timers.due(1200))) == ([], [("token", "a")])
    assert timers.next is None


YEAR_MS = 365 * 86_400_000


def places(timers):
    return len(timers._heap), len(timers._queued)


def test_a_deadline_that_is_cancelled_does_not_stay_in_the_heap_until_its_time():
    timers = Timers()
    for number in range(10_000):
        timers.set(("token", number), YEAR_MS)
        timers.cancel(("token", number))
    assert max(places(timers)) <= SLACK and list(timers.due(YEAR_MS)) == []


def test_a_deadline_that_is_moved_forward_again_and_again_keeps_one_place():
    timers = Timers()
    for number in range(10_000):
        timers.set("stall", YEAR_MS - number)
    assert max(places(timers)) <= SLACK + 2
    assert list(timers.due(YEAR_MS)) == ["stall"]


def test_many_cancelled_deadlines_among_few_that_stand_leave_those_in_order():
    timers = Timers()
    for number in range(1000):
        timers.set(("stands", number), 1000 - number)
    for number in range(5000):
        timers.set(("goes", number), YEAR_MS)
    for number in range(5000):
        timers.cancel(("goes", number))
    assert max(places(timers)) <= 2 * 1000 + SLACK
    assert list(timers.due(YEAR_MS)) == [("stands", number) for number in reversed(range(1000))]


@given(st.lists(steps, max_size=200))
def test_the_heap_has_at_most_twice_as_many_places_as_there_are_deadlines(script):
    timers, now = Timers(), 0
    for step, *arguments in script:
        if step == "set":
            timers.set(arguments[0], now + arguments[1])
        elif step == "cancel":
            timers.cancel(*arguments)
        else:
            now += arguments[0]
            list(timers.due(now))
        assert len(timers._heap) <= 2 * len(timers) + SLACK
