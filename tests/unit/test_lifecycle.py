"""What runs in the background starts once, ends the process when it dies, and is drained within its time."""

import os
import time

import gevent
import pytest
from gevent.event import Event

from app.lifecycle import Lifecycle
from tests.unit.logs.test_configuration import logged  # noqa: F401 - a fixture


class Deaths:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def deaths():
    return Deaths()


@pytest.fixture
def lifecycle(deaths):
    lifecycle = Lifecycle(on_death=deaths)
    yield lifecycle
    lifecycle.drain(1)


def until_told(stop):
    stop.wait()


def test_nothing_runs_before_the_start_and_the_start_happens_once(lifecycle):
    started = []
    lifecycle.on_start(lambda: started.append("first"))
    lifecycle.on_start(lambda: started.append("second"))
    lifecycle.add("task", lambda stop: started.append("task") or stop.wait())
    gevent.sleep(0)
    assert started == []
    lifecycle.start()
    lifecycle.start()
    gevent.sleep(0)
    assert started == ["first", "second", "task"]


def test_a_step_is_taken_again_and_again_until_the_drain(lifecycle):
    taken = []
    lifecycle.every("step", 0.001, lambda: taken.append(1))
    lifecycle.start()
    gevent.sleep(0.05)
    assert len(taken) > 2
    lifecycle.drain(1)
    seen = len(taken)
    gevent.sleep(0.01)
    assert len(taken) == seen


@pytest.mark.parametrize("end", [lambda stop: 1 / 0, lambda stop: None], ids=["raises", "returns"])
def test_a_dead_greenlet_ends_the_process(lifecycle, deaths, end):
    lifecycle.add("ends", end)
    lifecycle.start()
    gevent.sleep(0.01)
    assert deaths.count == 1
    assert lifecycle.has_failed


def test_a_death_is_in_the_log_with_its_name_and_its_traceback(lifecycle, logged):  # noqa: F811
    lifecycle.add("listener", lambda stop: 1 / 0)
    lifecycle.start()
    gevent.sleep(0.01)
    (line,) = [line for line in logged() if line["event"] == "background_task_died"]
    assert (line["level"], line["task"]) == ("critical", "listener")
    assert "ZeroDivisionError" in line["exception"]


def test_ending_the_process_is_a_sigterm_to_itself():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        from app.lifecycle import end_process

        end_process()
        time.sleep(5)
        os._exit(0)
    os.close(read), os.close(write)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 15


def test_a_task_that_ends_while_draining_is_no_death(lifecycle, deaths):
    lifecycle.add("task", until_told)
    lifecycle.add("raises late", lambda stop: stop.wait() and 1 / 0)
    lifecycle.start()
    lifecycle.drain(1)
    assert deaths.count == 0
    assert lifecycle.state == "stopped"


def test_the_drain_takes_its_steps_in_order_and_tells_the_tasks_afterwards(lifecycle):
    order = []
    lifecycle.on_drain("first", lambda: gevent.sleep(0.01) or order.append("first"))
    lifecycle.on_drain("second", lambda: order.append("second"))
    lifecycle.add("task", lambda stop: stop.wait() and order.append("task"))
    lifecycle.start()
    lifecycle.drain(1)
    assert order == ["first", "second", "task"]


def test_a_drain_step_that_fails_does_not_keep_the_others_from_theirs(lifecycle):
    taken = []
    lifecycle.on_drain("fails", lambda: 1 / 0)
    lifecycle.on_drain("works", lambda: taken.append(1))
    lifecycle.drain(1)
    assert taken == [1]


def test_who_hangs_is_left_behind_when_the_time_is_over(lifecycle):
    taken = []
    lifecycle.on_drain("hangs", lambda: gevent.sleep(60))
    lifecycle.on_drain("works", lambda: taken.append(1))
    lifecycle.add("deaf", lambda stop: gevent.sleep(60))
    lifecycle.start()
    started = time.monotonic()
    lifecycle.drain(0.2)
    assert time.monotonic() - started < 1
    assert taken == [1]
    assert lifecycle.state == "stopped"


def test_a_second_drain_waits_for_the_first_and_takes_no_step_again(lifecycle):
    taken, may_end = [], Event()
    lifecycle.on_drain("slow", lambda: taken.append(1) or may_end.wait())
    first = gevent.spawn(lifecycle.drain, 5)
    gevent.sleep(0)
    second = gevent.spawn(lifecycle.drain, 5)
    gevent.sleep(0.01)
    assert lifecycle.is_draining and lifecycle.state == "draining"
    assert not second.dead
    may_end.set()
    gevent.joinall([first, second], timeout=5)
    assert taken == [1] and second.dead


def test_a_drain_before_the_start_means_that_nothing_starts(lifecycle):
    started = []
    lifecycle.on_start(lambda: started.append(1))
    lifecycle.drain(1)
    lifecycle.start()
    assert started == []
