"""The worker that drains notices live traffic at every worker of its data directory."""

from types import SimpleNamespace

import pytest

from app.telemetry.drain.live_traffic import FRESH_MS, LiveTraffic
from tests.apps import Clock, make_app


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workers(tmp_path, clock):
    """Return two workers of one data directory, each with an `ingest`."""

    def worker():
        ingest = SimpleNamespace(in_flight=0, taken=0)
        traffic = LiveTraffic(tmp_path / ".traffic", ingest, clock)
        traffic.ingest = ingest
        return traffic

    return worker(), worker()


def test_without_events_there_is_no_live_traffic(workers):
    here, there = workers
    there.look()
    assert not here.is_live()


def test_a_batch_at_another_worker_is_live_traffic_for_a_moment(workers, clock):
    here, there = workers
    for _ in range(2):  # the second time the file exists already
        there.ingest.taken += 1
        there.look()
        assert here.is_live()
        clock.pass_ms(FRESH_MS)
        there.look()
        assert not here.is_live()


def test_a_batch_that_is_under_way_at_another_worker_is_live_traffic_until_it_is_done(workers, clock):
    here, there = workers
    there.ingest.in_flight = there.ingest.taken = 1
    for _ in range(10):
        there.look()
        assert here.is_live()
        clock.pass_ms(FRESH_MS)


def test_a_batch_at_the_same_worker_is_noticed_at_once_and_without_the_file(workers):
    here, _ = workers
    here.ingest.in_flight = 1
    assert here.is_live()


def test_a_clock_that_was_set_back_does_not_slow_the_drainer_for_long(workers, clock):
    here, there = workers
    there.ingest.taken = 1
    there.look()
    clock.pass_ms(-86_400_000)
    assert not here.is_live()


def test_a_missing_folder_raises_no_error(tmp_path, clock):
    traffic = LiveTraffic(tmp_path / "gone" / ".traffic", SimpleNamespace(in_flight=0, taken=1), clock)
    traffic.look()
    assert not traffic.is_live()


def test_the_drainer_of_one_worker_notices_a_batch_at_another(tmp_path):
    away = {"mongo_uri": "mongodb://127.0.0.1:1/x", "mongo_timeout_ms": 100}
    here, there = (make_app(tmp_path, **away).extensions["switchyard"] for _ in range(2))
    (tmp_path / "data" / "spool").mkdir(exist_ok=True)
    drainer = dict(here.lifecycle._tasks)["drainer"].__self__
    assert not drainer._mover._is_busy()
    there.telemetry.in_flight = 1
    look = next(step for name, step in there.lifecycle._tasks if name == "telemetry_traffic")
    look(_Once())
    assert drainer._mover._is_busy()


class _Once:
    """A stop that is set after one round."""

    def __init__(self):
        self._answers = iter([False, True])

    def wait(self, seconds):
        return next(self._answers)
