"""What one transport session may send, at a clock of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.realtime.allowance import FLOOD_FACTOR, MAX_REFUSED_CONNECTS, READ_FACTOR, Allowance
from app.realtime.options import Options
from tests.apps import NOW

OPTIONS = Options(connection_rate="50/second", connection_burst=100, flood_ms=10_000)


@pytest.fixture
def allowance():
    return Allowance(OPTIONS, NOW)


def test_frames_that_are_refused_at_once_are_told_to_come_back_one_after_another_at_the_rate(allowance):
    waits = [allowance.take(NOW) for _ in range(400)]
    assert waits[:100] == [0] * 100
    assert all(20 <= wait - (20 * number) <= 22 for number, wait in enumerate(waits[100:]))


def test_each_that_waits_as_told_is_served_then(allowance):
    waits = [wait for wait in (allowance.take(NOW) for _ in range(400)) if wait]
    assert [allowance.take(NOW + wait) for wait in sorted(waits)] == [0] * 300


def test_the_longest_wait_that_is_asked_for_is_ten_seconds(allowance):
    assert max(allowance.take(NOW) for _ in range(5000)) <= 10_001


def test_a_burst_of_thousands_is_no_flood(allowance):
    for number in range(3000):
        allowance.take(NOW + number)
    assert not allowance.is_flooding


def send_for(allowance, seconds, per_second, begins=NOW):
    for second in range(seconds):
        for number in range(per_second):
            allowance.take(begins + 1000 * second + 1000 * number // per_second)


@pytest.mark.parametrize(("seconds", "per_second", "is_flood"), [(10, 400, False), (12, 400, True), (60, 199, False), (60, 100, False)])
def test_only_many_times_the_rate_for_ten_seconds_is_a_flood(allowance, seconds, per_second, is_flood):
    send_for(allowance, seconds, per_second)
    assert allowance.is_flooding is is_flood


def test_a_second_without_a_flood_begins_the_count_again(allowance):
    send_for(allowance, 9, 400)
    send_for(allowance, 9, 400, NOW + 10_500)
    assert not allowance.is_flooding


def test_a_clock_that_goes_back_makes_no_flood_and_gives_no_token(allowance):
    send_for(allowance, 9, 400)
    assert allowance.take(NOW - 3_600_000) > 0
    send_for(allowance, 9, 400, NOW - 3_600_000)
    assert not allowance.is_flooding


def test_what_is_read_at_the_pauses_is_enough_to_see_a_flood(allowance):
    for _ in range(150):
        allowance.take(NOW)
    assert 1000 / allowance.pause_ms > FLOOD_FACTOR * 50
    assert 1000 / allowance.pause_ms <= READ_FACTOR * 50 * 1.1


@pytest.mark.parametrize("rate", ["6/minute", "1/second", "1000/second"])
def test_a_pause_is_never_longer_than_a_tenth_of_a_second(rate):
    allowance = Allowance(Options(connection_rate=rate, connection_burst=1), NOW)
    allowance.take(NOW)
    assert allowance.take(NOW) > 0 and 0 < allowance.pause_ms <= 100


def test_so_many_refused_connects_in_a_row_are_too_many_and_one_that_is_let_in_begins_the_count_again(allowance):
    for _ in range(3):
        assert [allowance.note_connect(False) for _ in range(MAX_REFUSED_CONNECTS - 1)] == [False] * (MAX_REFUSED_CONNECTS - 1)
        assert allowance.note_connect(True) is False
    assert [allowance.note_connect(False) for _ in range(MAX_REFUSED_CONNECTS)][-1] is True


@given(st.lists(st.integers(0, 300), max_size=300))
def test_what_is_let_through_is_at_most_the_burst_and_the_rate(pauses):
    allowance, now, taken = Allowance(OPTIONS, NOW), NOW, 0
    for pause in pauses:
        now += pause
        taken += not allowance.take(now)
        assert taken <= 100 + (now - NOW) * 50 / 1000 + 1
