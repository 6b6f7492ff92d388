"""Nobody who always has more to do keeps the others from their sockets."""

import signal
import subprocess
import sys
import time

import gevent
import pytest
from gevent import socket

from app.serving.fairness import (
    AT_ONCE_S,
    LARGE_BYTES,
    NOTICEABLE_BYTES,
    TIME_SLICE_S,
    TimeSlice,
    yield_before_large,
    yield_if_slice_is_over,
    yield_to_others,
)
from tests.event_loop import measured_loop
from tests.servers.switchyard import REPOSITORY


@pytest.fixture
def greedy():
    """Greenlets that go on for ever, and the count of all their turns."""
    greenlets, count = [], [0]

    def start(number):
        def work():
            while True:
                count[0] += 1
                yield_to_others()

        greenlets.extend(gevent.spawn(work) for _ in range(number))
        return count

    yield start
    gevent.killall(greenlets)


@pytest.mark.parametrize("number", [1, 10])
def test_who_waits_for_a_socket_waits_for_one_turn_however_many_have_more_to_do(greedy, number):
    here, there = socket.socketpair()
    count = greedy(number)
    waited = []
    for _ in range(20):
        gevent.sleep(0.005)
        before = count[0]
        there.send(b"x")
        here.recv(1)
        gevent.spawn(there.send, b"x")
        here.recv(1)
        waited.append(count[0] - before)
    assert max(waited) <= 3
    here.close()
    there.close()


def test_those_who_stand_in_line_have_their_turns_one_after_another():
    order = []

    def work(name):
        for _ in range(5):
            order.append(name)
            yield_to_others()

    gevent.joinall([gevent.spawn(work, name) for name in "abc"])
    assert order == list("abc" * 5)


def has_yielded(time_slice):
    others = []
    greenlet = gevent.spawn(others.append, "they had their turn")
    time_slice.yield_if_over()
    greenlet.kill()
    return bool(others)


def test_a_turn_is_over_after_its_time_and_begins_anew_after_a_wait():
    clock = Clock()
    time_slice = TimeSlice(clock)
    assert not has_yielded(time_slice)
    clock.now += TIME_SLICE_S
    time_slice.restart_if_waited(clock.now - AT_ONCE_S / 2)  # what is there at once is no wait
    assert has_yielded(time_slice)
    assert not has_yielded(time_slice), "it is a new one"
    clock.now += TIME_SLICE_S
    time_slice.restart_if_waited(clock.now - TIME_SLICE_S / 2)
    assert not has_yielded(time_slice), "the others had theirs during the wait"
    clock.now += TIME_SLICE_S / 2
    assert not has_yielded(time_slice)
    clock.now += TIME_SLICE_S
    assert has_yielded(time_slice)


def test_a_reader_that_was_kept_from_the_processor_does_not_stand_in_line():
    time_slice = TimeSlice.of_cpu_time()
    signal.sigtimedwait([], 2 * TIME_SLICE_S)  # the whole process stands still
    time_slice.restart_if_waited(time.monotonic())
    assert not has_yielded(time_slice)


def test_a_reader_that_has_worked_for_a_turn_stands_in_line_unless_it_has_waited():
    time_slice = TimeSlice.of_cpu_time()
    work_for(TIME_SLICE_S)
    time_slice.restart_if_waited(time.monotonic() - 2 * AT_ONCE_S)
    assert not has_yielded(time_slice)
    work_for(TIME_SLICE_S)
    time_slice.restart_if_waited(time.monotonic())
    assert has_yielded(time_slice)


class Clock:
    """Seconds that pass where a test says so, however busy the machine is."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def work_for(seconds):
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


@pytest.mark.parametrize(
    "begin",
    [
        lambda: yield_before_large(LARGE_BYTES + 1),
        lambda: yield_if_slice_is_over(NOTICEABLE_BYTES + 1),
        lambda: TimeSlice.of_loop_iteration().yield_if_over(),
    ],
    ids=["large", "noticeable", "a time slice of this loop iteration"],
)
def test_of_many_that_begin_at_once_few_work_before_the_sockets_are_looked_at(begin):
    def work():
        begin()
        work_for(TIME_SLICE_S)

    with measured_loop() as loop:
        gevent.joinall([gevent.spawn(work) for _ in range(40)])
    assert loop.longest_s < 10 * TIME_SLICE_S  # all of them together take forty


def test_what_is_small_does_not_wait():
    others = []
    gevent.sleep(0.001)
    work_for(2 * TIME_SLICE_S)
    gevent.spawn_later(0, others.append, "they had their turn")
    yield_before_large(LARGE_BYTES)
    yield_if_slice_is_over(NOTICEABLE_BYTES)
    assert others == []


SHARED = """
from gevent import monkey

monkey.patch_all()
import gevent
from app.serving.fairness import TIME_SLICE_S, _iteration_began

first = gevent.spawn(_iteration_began).get()
gevent.sleep(5 * TIME_SLICE_S)
assert gevent.spawn(_iteration_began).get() > first + TIME_SLICE_S  # a greenlet that asks for the first time, after the loop has looked
ends = __import__("time").monotonic() + 5 * TIME_SLICE_S
while __import__("time").monotonic() < ends:
    pass
assert _iteration_began() < ends - 4 * TIME_SLICE_S  # and one that works on has not made another round of it
"""


def test_the_round_is_the_loop_s_and_not_a_greenlet_s_where_threads_are_patched():
    subprocess.run([sys.executable, "-c", SHARED], check=True, cwd=REPOSITORY, timeout=30)
