"""The checks: side by side, measured, and not asked more often than once a second."""

import gevent
import pytest

from app.health import FRESH_MS, Health
from app.metrics import Metrics
from tests.apps import Clock


@pytest.fixture
def clock():
    return Clock()


def health(clock, metrics=None, is_ready=lambda report: True, **checks):
    return Health(checks, is_ready, clock, metrics or Metrics())


def test_each_dependency_has_its_state_and_its_latency(clock):
    ready, report = health(clock, spool=lambda: {"state": "up", "bytes": 7}).report()
    assert ready
    assert report["spool"].pop("latencyMs") >= 0
    assert report == {"spool": {"state": "up", "bytes": 7}}


def test_a_check_that_raises_is_down_and_says_why(clock):
    _, report = health(clock, mongo=lambda: 1 / 0).report()
    assert (report["mongo"]["state"], report["mongo"]["error"]) == ("down", "ZeroDivisionError: division by zero")


def test_the_checks_run_side_by_side(clock):
    slow = lambda: gevent.sleep(0.1) or {"state": "up"}  # noqa: E731
    with gevent.Timeout(0.25):
        health(clock, a=slow, b=slow, c=slow).report()


def test_an_answer_is_kept_for_a_second(clock):
    asked = []
    checked = health(clock, a=lambda: asked.append(1) or {"state": "up"})
    checked.report()
    clock.pass_ms(FRESH_MS - 1)
    checked.report()
    assert len(asked) == 1
    clock.pass_ms(1)
    checked.report()
    assert len(asked) == 2


def test_a_clock_that_is_set_back_does_not_freeze_the_answer(clock):
    asked = []
    checked = health(clock, a=lambda: asked.append(1) or {"state": "up"})
    checked.report()
    clock.pass_ms(-3_600_000)
    checked.report()
    assert len(asked) == 2


def test_many_who_ask_while_a_check_is_slow_share_its_answer(clock):
    asked = []
    checked = health(clock, a=lambda: asked.append(1) or gevent.sleep(0.05) or {"state": "up"})
    gevent.joinall([gevent.spawn(checked.report) for _ in range(50)])
    assert len(asked) == 1


def test_readiness_is_asked_anew_each_time_with_the_answers(clock):
    ready = []
    checked = health(clock, is_ready=lambda report: bool(ready) and report["a"]["state"] == "up", a=lambda: {"state": "up"})
    assert checked.report()[0] is False
    ready.append(1)
    assert checked.report()[0] is True


def test_each_state_is_a_metric(clock):
    metrics = Metrics()
    health(clock, metrics, up=lambda: {"state": "up"}, tired=lambda: {"state": "degraded"}, gone=lambda: 1 / 0).report()
    text = metrics.render().decode()
    for name, value in {"up": 1, "tired": 1, "gone": 0}.items():
        assert f'dependency_up{{dependency="{name}"}} {value}.0' in text
