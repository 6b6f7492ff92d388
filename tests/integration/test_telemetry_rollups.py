"""Statistics when an answer is lost on the network, when a process is killed, and when it is stopped."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
from pymongo import MongoClient

from app.storage import migrations, mongo
from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.mongo import MongoRollups
from tests.apps import NOW, SECRET, WRITE_KEY, bearer, make_app, make_settings
from tests.waiting import wait_until

ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}
SETTINGS = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}", "RATE_LIMIT_HTTP": "100000/second"}
AT = NOW - NOW % MINUTE_MS


def delta(seq, n=1):
    return Delta("w1", seq, NOW, [Bucket("web", None, AT, {"page": {"/": n}})])


def count(store):
    return sum(bucket.counts["page"]["/"] for bucket in store.read(MINUTE_MS, "web", None, 0, NOW + MINUTE_MS))


def test_a_flush_whose_answer_was_lost_on_the_network_counts_once(mongo_server, mongo_uri, proxy_to):
    proxy = proxy_to(mongo_server.port)
    name = mongo_uri.rsplit("/", 1)[-1]
    store = MongoRollups(mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/{name}", 700))
    store.apply(delta(1))
    with proxy.toxic("timeout", timeout=0):  # requests arrive, answers do not
        with pytest.raises(StorageUnavailable):
            store.apply(delta(2, n=10))
    with mongo_server.client() as direct:
        assert direct[name].telemetry_rollups.find_one({"level": MINUTE_MS})["by"] == {"w1": 2}
    store.apply(delta(2, n=10))
    assert count(store) == 11


def test_a_batch_that_mongo_stored_but_was_answered_503_is_counted_when_it_is_sent_again(tmp_path, mongo_server, mongo_uri, proxy_to):
    proxy, name = proxy_to(mongo_server.port), mongo_uri.rsplit("/", 1)[-1]
    uri = f"mongodb://127.0.0.1:{proxy.port}/{name}"
    app = make_app(tmp_path, mongo_uri=uri, mongo_timeout_ms=700, spool_max_bytes=1024)
    client, rollups = app.test_client(), app.extensions["switchyard"].telemetry_rollups
    events = [{"type": "event", "name": "x" * 200, "eventId": f"e{n}"} for n in range(10)]

    def send():
        return client.post("/api/telemetry/batch", json={"app": "web", "events": events}, headers=KEY).get_json()

    client.get("/api/telemetry/events", headers=ADMIN)  # is connected
    with proxy.toxic("timeout", timeout=0):
        assert send()["error"]["code"] == "storage_full"
    with mongo_server.client() as direct:
        assert direct[name].telemetry_events.count_documents({}) == 10
    saved = wait_until(lambda: answer if (answer := send())["ok"] else None)
    assert saved == {"ok": True, "saved": 10, "storage": "mongo"}
    assert send() == {"ok": True, "saved": 10, "duplicates": 10, "storage": "mongo"}
    rollups.flush()
    answer = client.get("/api/telemetry/stats?app=web", headers=ADMIN).get_json()
    assert answer["totals"]["count"] == 10


def test_a_document_that_mongo_refuses_for_ever_does_not_hold_up_the_others(mongo_uri):
    database = mongo.connect(mongo_uri, 5000)
    store = MongoRollups(database)
    store.apply(delta(1))
    database.telemetry_rollups.update_one({"level": MINUTE_MS}, {"$set": {"counts.page": "not a document"}})
    other = Bucket("web", "prod", AT, {"page": {"/": 1}})
    store.apply(Delta("w1", 2, NOW, [*delta(2).buckets, other]))
    assert list(store.read(MINUTE_MS, "web", "prod", 0, NOW + 1)) == [other]


def test_the_migration_makes_the_indexes_and_the_rollback_drops_them(tmp_path, mongo_uri):
    database = mongo.connect(mongo_uri, 5000)
    migrations.migrate(database, make_settings(tmp_path))
    found = database.telemetry_rollups.index_information()
    assert found["updatedAt_ttl"]["expireAfterSeconds"] == 90 * 86_400 and "app_level_at" in found
    for_ever = make_settings(tmp_path, telemetry_ttl_days=0)
    assert "0004_telemetry_rollups" in migrations.migrate(database, for_ever)
    assert "updatedAt_ttl" not in database.telemetry_rollups.index_information()
    while migrations.rollback(database, for_ever) != "0004_telemetry_rollups":
        pass
    assert list(database.telemetry_rollups.index_information()) == ["_id_"]


# --- a running process


def send(app, n):
    body = {"app": "web", "events": [{"type": "page", "name": "/"}] * n}
    answer = requests.post(f"{app.url}/api/telemetry/batch", json=body, headers={"X-Write-Key": WRITE_KEY}, timeout=10).json()
    assert answer["saved"] == n


def total(app):
    return requests.get(f"{app.url}/api/telemetry/stats?app=web", headers=ADMIN, timeout=10).json()["totals"]["count"]


def wait_until_counted(app, expected):
    wait_until(lambda: total(app) >= expected, show=lambda: total(app))
    assert total(app) == expected


@pytest.fixture(params=["embedded", "mongo"])
def storage(request):
    return {"MONGO_URI": request.getfixturevalue("mongo_uri")} if request.param == "mongo" else {}


def test_kill_9_loses_at_most_the_events_since_the_last_flush(switchyard, storage):
    app = switchyard(**SETTINGS, **storage, TELEMETRY_ROLLUPS_FLUSH_MS=100)
    send(app, 40)
    wait_until_counted(app, 40)
    send(app, 2)
    app.kill()
    app.start()
    left = total(app)
    assert left in (40, 42)
    send(app, 5)
    wait_until_counted(app, left + 5)


@pytest.mark.parametrize("storage, by", [("embedded", "flask"), ("mongo", "gunicorn")], indirect=["storage"])
def test_a_process_flushes_before_it_stops(switchyard, storage, by):
    app = switchyard(by=by, **SETTINGS, **storage, TELEMETRY_ROLLUPS_FLUSH_MS=600_000)
    send(app, 7)
    app.restart()
    assert total(app) == 7


def test_the_counts_of_two_workers_are_added_up(switchyard, redis_url, mongo_uri):
    app = switchyard(**SETTINGS, MONGO_URI=mongo_uri, REDIS_URL=redis_url, WEB_CONCURRENCY=2, TELEMETRY_ROLLUPS_FLUSH_MS=100)
    sent = 0

    def both_have_counted():
        nonlocal sent
        send(app, 2)
        sent += 2
        return len(_workers_that_counted(mongo_uri)) == 2

    wait_until(both_have_counted)
    wait_until_counted(app, sent)


def _workers_that_counted(mongo_uri):
    with MongoClient(mongo_uri) as client:
        return {worker for document in client.get_default_database().telemetry_rollups.find() for worker in document["by"]}


def test_events_that_were_counted_while_mongo_was_away_are_counted_when_it_is_back_even_after_kill_9(switchyard, own_mongo):
    uri = own_mongo.new_database()
    app = switchyard(**SETTINGS, MONGO_URI=uri, MONGO_TIMEOUT_MS=300, TELEMETRY_ROLLUPS_FLUSH_MS=100)
    send(app, 1)
    wait_until_counted(app, 1)
    own_mongo.kill()
    send(app, 10)
    wait_until(lambda: _has_queued_deltas(app))
    app.kill()
    own_mongo.start()
    app.start()
    wait_until_counted(app, 11)


def _has_queued_deltas(app):
    with closing(sqlite3.connect(app.data_dir / "rollups.sqlite")) as db:
        return db.execute("SELECT count(*) FROM waiting").fetchone()[0] > 0


def test_events_that_four_workers_without_mongo_receive_at_once_are_read_and_counted_once(switchyard, redis_url):
    app = switchyard(**SETTINGS, REDIS_URL=redis_url, WEB_CONCURRENCY=4, TELEMETRY_ROLLUPS_FLUSH_MS=200)
    batches = [[{"type": "event", "name": "a", "eventId": f"{batch}-{n}"} for n in range(3)] for batch in range(10)]

    def send(events):
        with requests.post(f"{app.url}/api/telemetry/batch", json={"app": "web", "events": events}, headers=KEY, timeout=10) as answer:
            return answer.json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, batches * 8))
    assert sum(answer["saved"] - answer.get("duplicates", 0) for answer in answers) == 30
    assert len(requests.get(f"{app.url}/api/telemetry/events?limit=1000", headers=ADMIN, timeout=5).json()["events"]) == 30
    wait_until_counted(app, 30)
