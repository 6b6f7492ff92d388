"""The promises of a store of statistics, tested on each store: in memory, in a file and in MongoDB."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.storage import mongo
from app.telemetry.stats.bucket import DAY_MS, HOUR_MS, MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.file import FileRollups
from app.telemetry.stats.store.memory import MemoryRollups
from app.telemetry.stats.store.mongo import MongoRollups
from tests.apps import Clock
from tests.waiting import wait_until

AT = 20_000 * DAY_MS


@pytest.fixture(params=["memory", "file", "mongo"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryRollups()
    if request.param == "file":
        return FileRollups(tmp_path / "rollups.sqlite", ttl_days=0, clock=Clock())
    return MongoRollups(mongo.connect(request.getfixturevalue("mongo_uri"), 5000))


def bucket(at=AT, app="web", env=None, n=1, name="/home"):
    return Bucket(app, env, at, {"page": {name: n}, "api": {"GET /x": 2 * n}}, {"GET /x": n}, {"api": {"GET /x": {300: n, 7: n}}})


def delta(*buckets, worker="w1", seq=1):
    return Delta(worker, seq, AT, list(buckets))


def read(store, level_ms=MINUTE_MS, app="web", env=None, since=0, until=AT + 10 * DAY_MS):
    return sorted(store.read(level_ms, app, env, since, until), key=lambda bucket: (bucket.at, bucket.env or ""))


def test_a_new_store_has_no_buckets(store):
    assert read(store) == []


def test_a_bucket_is_read_as_it_was_added(store):
    store.apply(delta(bucket()))
    assert read(store) == [bucket()]


def test_every_name_is_read_as_it_was_added(store):
    names = ["a.b", "$set", "%2E", "a%", "", "é😀", "0", "a\0b", "..", "x" * 256, "(other)", "_id", "GET /a?b=c&d[]=e"]
    store.apply(delta(Bucket("we.b$", "e\0%", AT, {"page": {name: 1 for name in names if name}}, {}, {"perf": {"a.b": {0: 1}}})))
    (found,) = read(store, app="we.b$")
    assert sorted(found.counts["page"]) == sorted(name for name in names if name)
    assert (found.env, found.values) == ("e\0%", {"perf": {"a.b": {0: 1}}})


def test_deltas_of_several_workers_add_up(store):
    store.apply(delta(bucket(n=1)))
    store.apply(delta(bucket(n=2), seq=2))
    store.apply(delta(bucket(n=4), worker="w2"))
    assert read(store) == [bucket(n=7)]


def test_a_delta_that_is_repeated_counts_once(store):
    for _ in range(3):
        store.apply(delta(bucket(n=1)))
    store.apply(delta(bucket(n=4), worker="w2"))
    store.apply(delta(bucket(n=2), seq=2))
    store.apply(delta(bucket(n=1)))
    store.apply(delta(bucket(n=2), seq=2))
    assert read(store) == [bucket(n=7)]
    assert read(store, DAY_MS) == [bucket(n=7)]


def test_a_delta_is_added_to_minutes_hours_and_days(store):
    late, midnight = AT + 3 * HOUR_MS + 5 * MINUTE_MS, AT + DAY_MS
    store.apply(delta(bucket(), bucket(AT + MINUTE_MS), bucket(late, n=2)))
    store.apply(delta(bucket(midnight), seq=2))
    assert read(store) == [bucket(), bucket(AT + MINUTE_MS), bucket(late, n=2), bucket(midnight)]
    assert read(store, HOUR_MS) == [bucket(n=2), bucket(AT + 3 * HOUR_MS, n=2), bucket(midnight)]
    assert read(store, DAY_MS) == [bucket(n=4), bucket(midnight)]


def test_reading_returns_the_buckets_of_a_range_an_app_and_an_env(store):
    buckets = [bucket(AT - MINUTE_MS), bucket(), bucket(env="prod"), bucket(env="test"), bucket(app="shop"), bucket(AT + MINUTE_MS)]
    store.apply(delta(*buckets))
    assert read(store, since=AT, until=AT + MINUTE_MS) == [bucket(), bucket(env="prod"), bucket(env="test")]
    assert read(store, env="prod") == [bucket(env="prod")]
    assert read(store, app="shop") == [bucket(app="shop")]


@pytest.mark.parametrize("store", ["file", "mongo"], indirect=True)
def test_many_workers_at_once_lose_no_delta(store):
    def work(worker):
        for seq in range(1, 6):
            store.apply(delta(bucket(), bucket(env="prod"), worker=worker, seq=seq))
            store.apply(delta(bucket(), bucket(env="prod"), worker=worker, seq=seq))

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(work, [f"w{n}" for n in range(8)]))
    assert read(store) == [bucket(n=40), bucket(env="prod", n=40)]


def test_a_delta_of_many_buckets_is_added_whole(store):
    store.apply(delta(*(bucket(AT + n * MINUTE_MS) for n in range(100))))
    assert len(read(store)) == 100
    assert read(store, DAY_MS) == [bucket(n=100)]


def test_a_bucket_that_counts_only_in_its_day_is_in_no_minute_and_no_hour(store):
    long_ago = bucket(AT)
    long_ago.narrowest_ms = DAY_MS
    store.apply(delta(long_ago, bucket(AT + MINUTE_MS, n=2)))
    assert read(store) == [bucket(AT + MINUTE_MS, n=2)]
    assert read(store, HOUR_MS) == [bucket(n=2)]
    assert read(store, DAY_MS) == [bucket(n=3)]


def test_the_apps_are_returned_in_the_order_in_which_they_were_first_counted(store):
    for seq, app in enumerate(["z", "m", "a", "m"], 1):
        store.apply(Delta("w1", seq, AT + seq, [bucket(AT - seq * DAY_MS, app=app), bucket(AT, app=app, env="prod")]))
    assert store.apps(10) == ["z", "m", "a"]
    assert store.apps(2) == ["z", "m"]


def test_a_store_that_works_is_up_and_tending_it_changes_nothing(store):
    store.apply(delta(bucket()))
    store.tend()
    assert store.check()["state"] == "up"
    assert read(store) == [bucket()]


def test_in_a_full_mongo_the_largest_app_loses_its_oldest_minutes_first(mongo_uri):
    store = MongoRollups(mongo.connect(mongo_uri, 5000), max_bytes=100_000)
    store.apply(delta(*(bucket(AT + n * MINUTE_MS, app="honest") for n in range(20))))
    for seq in range(2, 6):
        store.apply(delta(*(bucket(AT - (seq * 100 + n) * MINUTE_MS, app="invented") for n in range(100)), seq=seq))
    before = len(read(store, app="invented"))

    def left_after_deleting():
        store._size_limit._look_at = 0  # the size that the server reports may be some seconds old
        store.tend()
        left = read(store, app="invented")
        return left if len(left) < before else None

    left = wait_until(left_after_deleting)
    assert left[-1].at == AT - 200 * MINUTE_MS
    assert len(read(store, app="honest")) == 20
    assert sum(found.counts["page"]["/home"] for found in read(store, DAY_MS, app="invented")) == 400
    assert store.check()["state"] == "degraded" and "TELEMETRY_ROLLUPS_MAX_BYTES" in store.check()["error"]


@pytest.mark.parametrize(("asked", "expected"), [("", {"w": "majority", "j": True}), ("?w=1&journal=false", {"w": 1, "j": False})])
def test_in_mongo_statistics_are_as_durable_as_events(mongo_uri, asked, expected):
    store = MongoRollups(mongo.connect(mongo_uri + asked, 5000))
    assert store._collection.write_concern.document == expected
