"""kill -9 at any moment, of any worker, with MongoDB there or not: what was answered as saved ends in MongoDB exactly once."""

import os
import random
import signal
import time

import pytest

from app.telemetry.spool.event_lines import encode
from tests.integration.telemetry_clients import SETTINGS, Clients, assert_kept, health, stored_names, wait_until_drained
from tests.unit.telemetry.spool.test_chunks import event
from tests.waiting import wait_until

TWO = {**SETTINGS, "WEB_CONCURRENCY": 2}


def kill_one_worker(app):
    workers = app.workers
    if workers:
        os.kill(random.choice(workers), signal.SIGKILL)


def test_workers_killed_under_load_lose_nothing_while_mongo_comes_and_goes(switchyard, redis_url, mongo_server, mongo_uri, proxy_to):
    proxy = proxy_to(mongo_server.port)
    uri = mongo_uri.replace(str(mongo_server.port), str(proxy.port))
    app = switchyard(MONGO_URI=uri, REDIS_URL=redis_url, SPOOL_SEGMENT_BYTES=100_000, **TWO)
    with Clients(app.url, pause_s=0.005) as clients:
        for number in range(7):
            proxy.disable() if number % 2 else proxy.enable()
            time.sleep(random.uniform(0.1, 1.0))
            kill_one_worker(app)
        proxy.enable()
    assert {"mongo", "spool"} <= clients.answers.keys()
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)


def test_all_of_it_killed_and_started_again_moves_what_was_left(switchyard, mongo_server, mongo_uri, proxy_to):
    proxy = proxy_to(mongo_server.port)
    app = switchyard(MONGO_URI=mongo_uri.replace(str(mongo_server.port), str(proxy.port)), **SETTINGS)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("mongo", 0) > 10)
        proxy.disable()
        clients.until(lambda: clients.answers.get("spool", 0) > 50)
        app.kill()
    proxy.enable()
    app.start()
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)


def test_a_drainer_killed_in_the_middle_again_and_again_is_followed_by_another(switchyard, redis_url, mongo_uri):
    app = switchyard(REDIS_URL=redis_url, MONGO_URI=mongo_uri, **{**TWO, "SPOOL_DRAIN_EVENTS_PER_SECOND": 4000})
    folder, names = app.data_dir / "spool", [f"e{n}" for n in range(12_000)]
    for start in range(0, len(names), 3000):
        lines = encode([event(name, props={"text": "x" * 100}) for name in names[start : start + 3000]])
        half = folder / f"half-{start}"
        half.write_bytes(lines)
        half.rename(folder / f"events-{start:013d}-1-a.jsonl")
    on_duty = -1
    for _ in range(3):
        time.sleep(random.uniform(0.4, 0.9))
        for pid in app.workers:
            if _holds(pid, folder / ".drainer.lock"):
                os.kill(pid, signal.SIGKILL)
                on_duty += 1
    assert on_duty > 0
    wait_until_drained(app)
    assert sorted(stored_names(mongo_uri)) == sorted(names)
    assert not list(folder.glob("*.rejected"))


def _holds(pid, lock):
    """Whether this process is the one whose flock it is."""
    try:
        with open("/proc/locks") as locks:
            return any(f" {pid} " in row and row.split()[5].endswith(f":{lock.stat().st_ino}") for row in locks)
    except FileNotFoundError:
        pytest.skip("only Linux says who holds a lock")


def test_with_two_workers_exactly_one_drains_and_both_say_the_same(switchyard, redis_url, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, REDIS_URL=redis_url, **TWO)
    wait_until(lambda: app.log.count('"started"') == 2)
    assert app.log.count("drainer_is_leader") == 1
    lines = encode([event(f"e{n}") for n in range(300)])
    (app.data_dir / "spool" / "events-0000000000001-1-a.jsonl").write_bytes(lines)
    wait_until_drained(app)
    assert len(stored_names(mongo_uri)) == 300
    wait_until(lambda: all(health(app.url)["spool"]["drained"] == 300 for _ in range(8)))
