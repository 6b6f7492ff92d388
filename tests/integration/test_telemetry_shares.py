"""The attacker has a public write key and a gzip compressor; everybody else goes on storing."""

import gzip
import json
import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, error_of, make_app, token
from tests.integration.telemetry_clients import health
from tests.waiting import wait_until

URL = "/api/telemetry/batch"
KEY = {"X-Write-Key": WRITE_KEY}
IOS = "wk_of_ios_that_is_bound_to_ios"
SETTINGS = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY},ios:{IOS}@ios", "RATE_LIMIT_HTTP": "100000/second"}
UNLIMITED = {f"TELEMETRY_{party}_BYTE_RATE": "1000000000/second" for party in ("ADDRESS", "KEY", "APP")}


def bomb(app="web", events=1000):
    """Some hundred bytes that are stored as many megabytes."""
    body = {"app": app, "user": {"pad": "x" * 8000}, "events": [{"type": "page", "name": "/"}] * events}
    return gzip.compress(json.dumps(body).encode())


def attack(app, of="web"):
    headers = {**KEY, "Content-Encoding": "gzip", "Content-Type": "application/json"}
    return requests.post(app.url + URL, data=bomb(of), headers=headers, timeout=10)


def honest(app, of="ios", key=IOS):
    body = {"app": of, "events": [{"type": "page", "name": "/"}]}
    return requests.post(app.url + URL, json=body, headers={"X-Write-Key": key}, timeout=10)


def spool_bytes(app):
    return sum(path.stat().st_size for path in (app.data_dir / "spool").glob("events-*.jsonl"))


def test_a_gzip_of_a_few_kilobytes_is_held_to_what_it_stores(switchyard):
    app = switchyard(**SETTINGS, TELEMETRY_KEY_BYTE_RATE="100000/second", TELEMETRY_BYTE_BURST_S=100)
    assert len(bomb()) < 10_000
    answers = [attack(app) for _ in range(12)]
    assert {answer.status_code for answer in answers[2:]} == {429}
    assert "The write key of web may store 100000 bytes per second (TELEMETRY_KEY_BYTE_RATE)" in error_of(answers[-1])["message"]
    assert spool_bytes(app) < 20_000_000
    assert honest(app).json()["saved"] == 1


def test_one_app_does_not_fill_the_spool_for_another_even_after_kill_9(switchyard):
    app = switchyard(**SETTINGS, **UNLIMITED, SPOOL_MAX_BYTES=60_000_000)
    answers = [attack(app) for _ in range(8)]
    error = error_of(answers[-1])
    assert (answers[-1].status_code, error["code"]) == (503, "storage_full")
    assert "The application web has used up the share of the spool" in error["message"]
    assert health(app.url)["spool"]["appsAtTheirShare"] == ["web"]
    assert honest(app).json() == {"ok": True, "saved": 1, "storage": "spool"}
    app.kill()
    app.start()
    stored = spool_bytes(app)
    assert attack(app).status_code == 503 and spool_bytes(app) == stored
    assert honest(app).json()["saved"] == 1


def test_two_workers_know_what_each_other_stored_within_seconds(switchyard, redis_url):
    app = switchyard(**SETTINGS, **UNLIMITED, SPOOL_MAX_BYTES=60_000_000, REDIS_URL=redis_url, WEB_CONCURRENCY=2)
    small = {"app": "web", "events": [{"type": "page", "name": "/", "props": {"pad": "x" * 30_000}}] * 14}

    def is_full():
        return requests.post(app.url + URL, json=small, headers=KEY, timeout=10).status_code == 503

    wait_until(lambda: all(is_full() for _ in range(10)), within_s=60)
    assert 30_000_000 < spool_bytes(app) < 48_000_000  # of 39 MB, and what the two stored in two seconds
    assert honest(app).json()["saved"] == 1


def test_invented_apps_leave_the_app_of_a_bound_key_its_part(switchyard):
    app = switchyard(**SETTINGS, **UNLIMITED, SPOOL_MAX_BYTES=60_000_000)
    for number in range(60):
        attack(app, of=f"invented-{number}")
    assert attack(app, of="one-more").status_code == 503
    assert honest(app).json()["saved"] == 1


@pytest.fixture
def full(tmp_path):
    """The share of `web` is used up."""
    app = make_app(tmp_path, spool_max_bytes=200_000)
    client = app.test_client()
    pad = {"type": "page", "name": "/", "props": {"pad": "x" * 10_000}}
    statuses = [client.post(URL, json={"app": "web", "events": [pad]}, headers=KEY).status_code for _ in range(20)]
    assert statuses[0] == 200 and statuses[-1] == 503
    return app


MIXED = {"app": "shop", "events": [{"type": "page", "name": "/"}, {"type": "page"}, {"type": "page", "name": "x" * 250, "app": "web"}]}


def fill_the_rest(client):
    while client.post(URL, json={**MIXED, "app": "web"}, headers=KEY).status_code == 200:
        pass


def test_where_a_batch_mixes_apps_only_the_events_of_the_full_one_are_rejected(full):
    client = full.test_client()
    fill_the_rest(client)
    answer = client.post(URL, json=MIXED, headers=KEY).get_json()
    assert (answer["saved"], answer["storage"]) == (1, "spool")
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(1, "bad_request"), (2, "storage_full")]
    assert "The application web has used up" in answer["rejected"][1]["message"]


def test_both_ways_answer_a_full_share_alike(full):
    fill_the_rest(full.test_client())
    for body in (MIXED, {**MIXED, "app": "web"}):
        fast = full.test_client().post(URL, json=body, headers=KEY)
        lane, full.wsgi_app = full.wsgi_app, full.wsgi_app._application
        slow = full.test_client().post(URL, json=body, headers=KEY)
        full.wsgi_app = lane
        assert (fast.status_code, fast.get_json(), fast.headers.get("Retry-After")) == (
            slow.status_code, slow.get_json(), slow.headers.get("Retry-After"))  # fmt: skip


def test_a_write_that_found_no_room_gives_its_budget_back(tmp_path):
    app = make_app(tmp_path, spool_max_bytes=20_000, telemetry_app_byte_rate="6/second", telemetry_byte_burst_s=3600)
    large = {"app": "web", "events": [{"type": "page", "name": "/", "props": {"pad": "x" * 15_000}}]}
    client = app.test_client()
    answers = [client.post(URL, json=large, headers=KEY).status_code for _ in range(4)]
    assert answers == [503] * 4
    assert client.post(URL, json={"app": "web", "events": [{"type": "page", "name": "/"}]}, headers=KEY).status_code == 200


# The statistics.


ADMIN = {"Authorization": f"Bearer {token('boss', 'admin')}"}


def counted(app, of, **query):
    response = requests.get(f"{app.url}/api/telemetry/stats", params={"app": of, **query}, headers=ADMIN, timeout=10)
    return response.json()["totals"]["count"]


def invent(app, number):
    """A batch of a thousand applications, envs, names and times that nobody has heard of."""
    now = int(time.time() * 1000)
    events = [
        {"type": "page", "app": f"a{number}-{n}", "env": f"e{number}-{n}", "name": f"n{n}", "ts": now - n * number * 61_000}
        for n in range(1000)
    ]
    assert requests.post(app.url + URL, json={"events": events}, headers=KEY, timeout=10).json()["saved"] == 1000


@pytest.mark.parametrize("storage", ["embedded", "mongo"])
def test_invented_apps_envs_and_times_hide_no_count_of_another_app(switchyard, request, storage):
    mongo = {"MONGO_URI": request.getfixturevalue("mongo_uri"), "MONGO_TIMEOUT_MS": 5000} if storage == "mongo" else {}
    app = switchyard(**SETTINGS, **UNLIMITED, **mongo, TELEMETRY_ROLLUPS_FLUSH_MS=200)
    assert honest(app, "shop", WRITE_KEY).json()["saved"] == 1  # was there before, with the attacker's key
    wait_until(lambda: counted(app, "shop") == 1)
    for number in range(1, 31):
        invent(app, number)
        for of, key in (("shop", WRITE_KEY), ("ios", IOS)):
            assert honest(app, of, key).json()["saved"] == 1
    assert honest(app).json()["saved"] == 1
    total = 31
    wait_until(lambda: counted(app, "shop") == counted(app, "ios") == total, show=lambda: (counted(app, "shop"), counted(app, "ios")))
    assert counted(app, "(other)", bucket="1d", **{"from": int(time.time() * 1000) - 30 * 86_400_000}) > 20_000
    if storage == "embedded":
        assert sum(path.stat().st_size for path in app.data_dir.glob("rollups.sqlite*")) < 20_000_000


@pytest.mark.parametrize("spoil", ["delete", "damage"])
def test_statistics_recover_by_themselves_under_a_running_server(switchyard, spoil):
    app = switchyard(**SETTINGS, TELEMETRY_ROLLUPS_FLUSH_MS=100)
    honest(app)
    wait_until(lambda: counted(app, "ios") == 1)
    file = app.data_dir / "rollups.sqlite"
    if spoil == "delete":
        file.unlink()
    else:
        file.write_bytes(b"spoilt" * 5000)
    honest(app)
    wait_until(lambda: counted(app, "ios") == 1)
    found = health(app.url)["rollups"]
    if spoil == "damage":
        assert found["state"] == "degraded" and "rollups.sqlite.damaged" in found["error"]
        assert "rollups_damaged" in app.log
    else:
        assert found["state"] == "up"
    honest(app)
    wait_until(lambda: counted(app, "ios") == 2)
