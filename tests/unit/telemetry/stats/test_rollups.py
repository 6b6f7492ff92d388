"""What a worker does with its numbers between two flushes: nothing twice, nothing lost while it lives, nothing without a bound."""

import gevent
import pytest
from gevent.event import Event

from app.telemetry.batch import read_batch
from app.telemetry.stats.cell import MINUTE_MS
from app.telemetry.stats.rollups import Rollups
from tests.apps import NOW, Clock


@pytest.fixture
def rollups(store, metrics):
    return Rollups(store, Clock(), metrics, flush_every_s=60)


def pages(*names, ts=NOW):
    return read_batch({"app": "web", "events": [{"type": "page", "name": name, "ts": ts} for name in names]}, NOW, 10_000).events


def counted(store):
    counts = {}
    for cell in store.read(MINUTE_MS, "web", None, 0, NOW + MINUTE_MS):
        for name, n in cell.counts["page"].items():
            counts[name] = counts.get(name, 0) + n
    return counts


def test_what_was_noted_is_in_the_store_after_a_flush(rollups, store):
    rollups.note(pages("a", "b"))
    rollups.note(pages("a"))
    assert counted(store) == {}
    rollups.flush()
    assert counted(store) == {"a": 2, "b": 1}


def test_what_was_known_before_is_not_counted_again(rollups, store):
    rollups.note(pages("a", "b", "c"), [0, 2])
    rollups.flush()
    assert counted(store) == {"b": 1}


def test_a_flush_of_nothing_asks_nobody(rollups, store):
    rollups.flush()
    assert store.asked == []


def test_while_the_store_is_away_everything_is_kept_and_counted_later_once(rollups, store):
    store.failures = 3
    for name in "abc":
        rollups.note(pages(name))
        rollups.flush()
    assert (counted(store), rollups.check()["state"]) == ({}, "degraded")
    rollups.flush()
    assert (counted(store), rollups.check()["state"]) == ({"a": 1, "b": 1, "c": 1}, "up")


def test_a_delta_whose_answer_was_lost_is_sent_again_with_its_number_and_counts_once(rollups, store):
    store.failures, store.loses_answers = 2, True
    rollups.note(pages("a"))
    rollups.flush()
    rollups.note(pages("b"))
    rollups.flush()
    rollups.flush()
    assert len(set(store.asked)) == 2 and len(store.asked) == 4
    assert counted(store) == {"a": 1, "b": 1}


def test_many_minutes_are_sent_in_several_deltas(rollups, store):
    rollups.note([event for minute in range(250) for event in pages("a", ts=NOW - minute * MINUTE_MS)])
    rollups.flush()
    assert [seq for _, seq in store.asked] == [1, 2, 3]
    assert counted(store) == {"a": 250}


def test_two_workers_have_different_numbers(store, metrics):
    for _ in range(2):
        worker = Rollups(store, Clock(), metrics, flush_every_s=60)
        worker.note(pages("a"))
        worker.flush()
    assert counted(store) == {"a": 2}


def test_folding_lets_others_run_and_loses_nothing(rollups, store):
    turns = []
    for _ in range(10):
        rollups.note(pages(*["a"] * 1000))
    folding = gevent.spawn(rollups.fold)
    others = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(5)])
    gevent.joinall([folding, others])
    rollups.flush()
    assert counted(store) == {"a": 10_000} and len(turns) == 5


def test_a_flush_in_the_middle_of_a_fold_loses_nothing(rollups, store):
    for _ in range(10):
        rollups.note(pages(*["a"] * 1000))
    folding = gevent.spawn(rollups.fold)
    gevent.sleep(0)
    rollups.flush()
    folding.join()
    rollups.flush()
    assert counted(store) == {"a": 10_000}


def test_too_many_waiting_batches_are_folded_at_once_and_none_is_lost(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=3)
    for _ in range(8):
        rollups.note(pages("a"))
    rollups.flush()
    assert counted(store) == {"a": 8}


def test_too_many_names_are_counted_as_other_and_too_many_minutes_are_given_up_and_said_so(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=0, max_counters=400)
    for n in range(1000):
        rollups.note(pages(f"n{n}"))
    for n in range(1000):
        rollups.note(pages("a", ts=NOW - n * MINUTE_MS))
    rollups.flush()
    lost = metrics.telemetry_rollups_lost_total._value.get()
    assert lost >= 500
    assert sum(counted(store).values()) + lost == 2000
    assert counted(store)["(other)"] >= 600


def test_the_background_task_flushes_in_time_and_once_more_at_its_end(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=0.01)
    stop = Event()
    task = gevent.spawn(rollups.run, stop)
    rollups.note(pages("a"))
    gevent.sleep(0.05)
    assert counted(store) == {"a": 1}
    rollups._flush_every_s = 60
    rollups.note(pages("b"))
    stop.set()
    task.join(timeout=5)
    assert counted(store) == {"a": 1, "b": 1}
    rollups.note(pages("late"))
    assert counted(store)["late"] == 1
