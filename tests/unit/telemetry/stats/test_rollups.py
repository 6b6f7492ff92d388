"""A worker counts its events once, loses none while it lives, and keeps a limited number of counters."""

import gevent
import pytest
from gevent.event import Event

from app.storage.errors import StorageUnavailable
from app.telemetry.batch import read_batch
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS
from app.telemetry.stats.grouping import Grouping
from app.telemetry.stats.rollups import Rollups
from tests.apps import NOW, Clock
from tests.waiting import wait_until


@pytest.fixture
def rollups(store, metrics):
    return Rollups(store, Clock(), metrics, flush_every_s=60)


def pages(*names, ts=NOW):
    return read_batch({"app": "web", "events": [{"type": "page", "name": name, "ts": ts} for name in names]}, NOW, 10_000).events


def counted(store, level_ms=MINUTE_MS, app="web"):
    counts = {}
    for bucket in store.read(level_ms, app, None, 0, NOW + MINUTE_MS):
        for name, n in bucket.counts.get("page", {}).items():
            counts[name] = counts.get(name, 0) + n
    return counts


def test_noted_events_are_in_the_store_after_a_flush(rollups, store):
    rollups.note(pages("a", "b"))
    rollups.note(pages("a"))
    assert counted(store) == {}
    rollups.flush()
    assert counted(store) == {"a": 2, "b": 1}


def test_events_that_were_stored_before_are_not_counted_again(rollups, store):
    rollups.note(pages("a", "b", "c"), [0, 2])
    rollups.flush()
    assert counted(store) == {"b": 1}


def test_a_flush_without_events_sends_nothing_to_the_store(rollups, store):
    rollups.flush()
    assert store.asked == []


def test_a_flush_that_meets_another_one_waits_for_it_without_blocking_the_thread(rollups, store):
    apply, order = store.apply, []

    def slowly(delta):
        order.append("begun")
        gevent.sleep(0.01)
        apply(delta)
        order.append("done")

    store.apply = slowly
    rollups.note(pages("a"))
    first = gevent.spawn(rollups.flush)
    gevent.sleep(0)
    rollups.note(pages("b"))
    rollups.flush()
    first.join()
    assert (order, counted(store)) == (["begun", "done"] * 2, {"a": 1, "b": 1})


def test_counts_are_kept_while_the_store_is_away_and_stored_once_when_it_is_back(rollups, store):
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


def test_the_deltas_of_two_workers_are_not_taken_for_the_same(store, metrics):
    for _ in range(2):
        worker = Rollups(store, Clock(), metrics, flush_every_s=60)
        worker.note(pages("a"))
        worker.flush()
    assert counted(store) == {"a": 2}


def test_folding_yields_to_other_greenlets_and_loses_nothing(rollups, store):
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


def test_too_many_names_are_counted_under_other_and_too_many_minutes_in_their_day(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=0, max_counters=400)
    for n in range(1000):
        rollups.note(pages(f"n{n}"))
    for n in range(1000):
        rollups.note(pages("a", ts=NOW - n * MINUTE_MS))
    rollups.flush()
    by_day = counted(store, DAY_MS)
    assert sum(by_day.values()) == 2000 and by_day["(other)"] >= 600
    assert sum(counted(store).values()) < 2000
    assert metrics.telemetry_rollups_lost_total._value.get() == 0


def test_the_background_task_flushes_in_time_and_once_more_at_its_end(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=0.01)
    stop = Event()
    task = gevent.spawn(rollups.run, stop)
    rollups.note(pages("a"))
    wait_until(lambda: counted(store) == {"a": 1}, sleep=gevent.sleep)
    rollups._flush_every_s = 60
    rollups.note(pages("b"))
    stop.set()
    task.join(timeout=5)
    assert counted(store) == {"a": 1, "b": 1}
    rollups.note(pages("late"))
    assert counted(store)["late"] == 1


# An attacker with a public write key invents applications, envs, times, names and values.


def sent(events, **envelope):
    return read_batch({**envelope, "events": [{"type": "page", "name": "a", "ts": NOW, **event} for event in events]}, NOW, 10_000).events


ATTACKS = {
    "apps": lambda n: sent([{"app": f"app-{n}-{m}"} for m in range(1000)]),
    "envs": lambda n: sent([{"env": f"env-{n}-{m}"} for m in range(1000)], app="attacked"),
    "times": lambda n: sent([{"ts": NOW - (n * 1000 + m) * 7 * MINUTE_MS} for m in range(1000)], app="attacked"),
    "names": lambda n: sent([{"name": f"name-{n}-{m}"} for m in range(1000)], app="attacked"),
    "values": lambda n: sent([{"type": "perf", "props": {"ms": 1.04 ** (m % 700)}, "name": f"n{m}"} for m in range(1000)], app="attacked"),
    "all at once": lambda n: sent(
        [{"app": f"app-{n}-{m % 9}", "env": f"e{n}-{m}", "name": f"n{m}", "ts": NOW - m * n * 9 * MINUTE_MS} for m in range(1000)]
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("key", ["the same key", "another key"])
def test_invented_fields_cost_other_applications_no_count_no_name_and_no_minute(store, metrics, attack, key):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=0)
    for n in range(40):
        rollups.note(attack(n), (), "web")
        rollups.note(pages("a", "b"), (), "web" if key == "the same key" else "ios")
        if n % 9 == 8:
            rollups.flush()
    rollups.flush()
    assert counted(store) == {"a": 40, "b": 40}
    assert counted(store, DAY_MS) == {"a": 40, "b": 40}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_flush_stores_a_limited_number_of_buckets_and_every_event_is_counted_or_reported_as_lost(store, metrics, name):
    rollups, total = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=0), 0
    for n in range(40):
        events = ATTACKS[name](n)
        rollups.note(events, (), "web")
        total += len(events)
    assert sum(map(len, rollups._counters.values())) <= 20_000 + 3000
    rollups.flush()
    days = [bucket for (level, *_), bucket in store._buckets.items() if level == DAY_MS]
    stored = sum(sum(names.values()) for bucket in days for names in bucket.counts.values())
    assert stored + metrics.telemetry_rollups_lost_total._value.get() == total
    assert len(store._buckets) <= 3 * 20_000


def test_an_app_that_sends_every_day_keeps_its_name_whatever_others_send(store, metrics):
    clock = Clock()
    rollups = Rollups(store, clock, metrics, flush_every_s=60, max_waiting=0)
    for day in range(4):
        ts = clock()
        rollups.note(sent([{"app": "honest", "ts": ts}]), (), "web")
        rollups.flush()
        for n in range(3):
            rollups.note(sent([{"app": f"d{day}-{n}-{m}", "ts": ts} for m in range(1000)]), (), "web")
            rollups.flush()
        clock.pass_ms(DAY_MS)
        rollups.note(sent([{"app": f"early-{day}-{m}", "ts": clock()} for m in range(1000)]), (), "web")
        rollups.flush()
    assert sum(bucket.counts["page"]["a"] for bucket in store.read(DAY_MS, "honest", None, 0, clock())) == 4
    apps = {app for _, app, *_ in store._buckets}
    assert "(other)" in apps and len(apps) < 6 * 101


def test_an_app_that_a_write_key_names_keeps_its_name_although_invented_ones_came_first(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60, max_waiting=0, grouping=Grouping(named=["shop"]))
    for n in range(3):
        rollups.note(ATTACKS["apps"](n), (), "web")
        rollups.flush()
    rollups.note(sent([{"app": "shop"}, {"app": "late"}]), (), "web")
    rollups.flush()
    assert (counted(store, app="shop"), counted(store, app="late")) == ({"a": 1}, {})


def test_an_app_that_was_counted_before_a_restart_keeps_its_name_although_invented_ones_come_first(store, metrics):
    before = Rollups(store, Clock(), metrics, flush_every_s=60)
    before.note(sent([{"app": "shop"}]), (), "web")
    before.flush()
    rollups, stop = Rollups(store, Clock(), metrics, flush_every_s=60), Event()
    for n in range(3):
        rollups.note(ATTACKS["apps"](n), (), "web")
    task = gevent.spawn(rollups.run, stop)
    wait_until(lambda: "shop" in rollups._grouping._named, sleep=gevent.sleep)
    rollups.note(sent([{"app": "shop"}]), (), "web")
    stop.set()
    task.join(timeout=5)
    assert counted(store, app="shop") == {"a": 2}


def test_a_store_that_does_not_return_its_apps_delays_no_flush(store, metrics):
    def fail(at_most):
        gevent.sleep(60)
        raise StorageUnavailable("away")

    store.apps = fail
    rollups, stop = Rollups(store, Clock(), metrics, flush_every_s=0.01), Event()
    task = gevent.spawn(rollups.run, stop)
    rollups.note(pages("a"))
    wait_until(lambda: counted(store) == {"a": 1}, sleep=gevent.sleep)
    stop.set()
    task.join(timeout=5)
    assert task.dead


def test_events_of_long_ago_count_in_their_day_and_in_no_minute(store, metrics):
    rollups = Rollups(store, Clock(), metrics, flush_every_s=60)
    near, far = NOW - DAY_MS + MINUTE_MS, NOW - 2 * DAY_MS
    for ts in (near, far, far):
        rollups.note(pages("a", ts=ts))
    rollups.flush()
    assert (counted(store), counted(store, 60 * MINUTE_MS), counted(store, DAY_MS)) == ({"a": 1}, {"a": 1}, {"a": 3})
    assert far - far % DAY_MS in {bucket.at for bucket in store.read(DAY_MS, "web", None, 0, NOW)}
