"""No data is deleted on the word of a clock that is wrong for a while."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.retention_clock import CATCH_UP, RetentionClock, advanced
from app.telemetry.query import EventQuery
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.file import FileRollups
from tests.apps import NOW, Clock
from tests.contracts.test_event_sinks import events, make_spool

HOUR_MS = 3_600_000


class Passing:
    """Monotonic seconds that a test lets pass."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def make(tmp_path):
    def make(now):
        passing = Passing()
        trusted = RetentionClock(tmp_path / ".clock", Clock(now), passing)
        return trusted, passing

    return make


@given(trusted=st.integers(0, 2**42), clock=st.integers(0, 2**42), passed=st.integers(0, 10**9))
def test_it_never_passes_the_clock_and_gains_only_so_much_on_the_time_that_passed(trusted, clock, passed):
    found = advanced(trusted, clock, passed)
    assert found == clock or (found < clock and found == trusted + CATCH_UP * passed)


def test_a_first_start_begins_at_the_newest_data(make):
    assert make(NOW + 100 * DAY_MS)[0].now(NOW) == NOW


def test_data_of_the_future_does_not_take_it_past_the_clock(make):
    assert make(NOW)[0].now(NOW + 100 * DAY_MS) == NOW


def test_a_later_start_goes_on_from_what_was_trusted_last(make):
    make(NOW)[0].now(NOW)
    assert make(NOW + 100 * DAY_MS)[0].now(NOW + 99 * DAY_MS) == NOW


def test_a_clock_that_is_right_is_caught_up_with_while_time_passes(make):
    make(NOW)[0].now(NOW)
    trusted, passing = make(NOW + DAY_MS)
    assert trusted.now(NOW) == NOW
    passing.seconds += 1800
    assert trusted.now(NOW) == NOW + 12 * HOUR_MS
    passing.seconds += 7200
    assert trusted.now(NOW) == NOW + DAY_MS


def test_a_clock_that_jumps_under_a_running_server_gains_no_more(make):
    trusted, passing = make(NOW)
    trusted.now(NOW)
    trusted._clock.pass_ms(100 * DAY_MS)
    passing.seconds += 60
    assert trusted.now(NOW + 100 * DAY_MS) == NOW + CATCH_UP * 60_000


@pytest.mark.parametrize("text", ["", "nonsense", "12x"])
def test_a_file_that_cannot_be_read_leads_back_to_the_newest_data(make, tmp_path, text):
    (tmp_path / ".clock").write_text(text)
    assert make(NOW + 100 * DAY_MS)[0].now(NOW) == NOW


def test_one_start_with_the_clock_ahead_deletes_no_event(tmp_path):
    spool = make_spool(tmp_path, clock=Clock(NOW))
    spool.write(events("a"))
    spool.close()
    for path in tmp_path.glob("events-*"):
        os.utime(path, (NOW / 1000,) * 2)
    (tmp_path / ".clock").unlink(missing_ok=True)
    for _ in range(2):  # also where it is the second such start, with data of its own
        ahead = make_spool(tmp_path, clock=Clock(NOW + 100 * DAY_MS))
        ahead.write(events("b"))
        ahead.tend()
        assert "a" in [event.name for event in ahead.find(EventQuery(exact={})).events]


def test_one_start_with_the_clock_ahead_deletes_no_line_that_was_put_aside(tmp_path):
    path = tmp_path / "events-1.jsonl.rejected"
    path.write_text("{}\n")
    os.utime(path, (NOW / 1000,) * 2)
    make_spool(tmp_path, clock=Clock(NOW + 100 * DAY_MS), is_store=False)
    assert path.exists()


def test_one_start_with_the_clock_ahead_deletes_no_number(tmp_path):
    def rollups(now):
        return FileRollups(tmp_path / "rollups.sqlite", ttl_days=90, clock=Clock(now))

    at = NOW - NOW % MINUTE_MS
    rollups(NOW).apply(Delta("w1", 1, NOW, [Bucket("web", None, at, {"page": {"/": 1}})]))
    ahead = rollups(NOW + 100 * DAY_MS)
    ahead.tend()
    ahead.apply(Delta("w2", 1, NOW + 100 * DAY_MS, [Bucket("web", None, at + 100 * DAY_MS, {"page": {"/": 1}})]))
    ahead.tend()
    rollups(NOW + 100 * DAY_MS).tend()
    assert len(rollups(NOW).read(MINUTE_MS, "web", None, 0, NOW + DAY_MS)) == 1
