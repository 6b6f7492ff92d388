"""The spool under a process that is restarted, or killed at any moment: what was answered as saved is there afterwards."""

import random
import threading
import time

import requests

from tests.apps import SECRET, WRITE_KEY, token

SETTINGS = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}", "RATE_LIMIT_HTTP": "100000/second"}
ADMIN = {"Authorization": f"Bearer {token('boss', 'admin')}"}


def send(url, names):
    body = {"app": "web", "events": [{"type": "event", "name": name, "eventId": name} for name in names]}
    return requests.post(f"{url}/api/telemetry/batch", json=body, headers={"X-Write-Key": WRITE_KEY}, timeout=10).json()


def stored_names(url):
    names, cursor = [], None
    while True:
        query = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
        page = requests.get(f"{url}/api/telemetry/events", params=query, headers=ADMIN, timeout=30).json()
        names += [event["name"] for event in page["events"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return names


def test_after_a_restart_everything_is_still_there_and_known(switchyard):
    app = switchyard(**SETTINGS)
    assert send(app.url, ["a", "b"])["saved"] == 2
    app.restart()
    assert sorted(stored_names(app.url)) == ["a", "b"]
    assert send(app.url, ["b", "c"]) == {"ok": True, "saved": 2, "duplicates": 1, "storage": "spool"}
    assert sorted(stored_names(app.url)) == ["a", "b", "c"]


def test_what_was_answered_as_saved_survives_kill_9_under_load(switchyard):
    app = switchyard(**SETTINGS)
    saved, lock, rounds = set(), threading.Lock(), 4
    for round_number in range(rounds):
        stop = threading.Event()
        clients = [threading.Thread(target=_send_until, args=(app.url, f"r{round_number}c{n}", stop, saved, lock)) for n in range(8)]
        for client in clients:
            client.start()
        time.sleep(random.uniform(0.2, 0.6))
        app.kill()
        stop.set()
        for client in clients:
            client.join()
        app.start()
    names = stored_names(app.url)
    assert len(saved) > 50
    assert saved <= set(names)
    assert len(names) == len(set(names))


def _send_until(url, prefix, stop, saved, lock):
    count = 0
    while not stop.is_set():
        names = [f"{prefix}-{count}-{n}" for n in range(5)]
        count += 1
        try:
            if send(url, names).get("saved") == 5:
                with lock:
                    saved.update(names)
        except (requests.RequestException, ValueError):
            return  # killed in the middle of it: nothing was promised


def test_a_line_torn_by_a_crash_is_passed_over(switchyard):
    app = switchyard(**SETTINGS)
    send(app.url, ["a"])
    app.kill()
    (segment,) = (app.data_dir / "spool").glob("events-*.jsonl")
    with open(segment, "ab") as file:
        file.write(b'{"_id":"torn","app":"we')
    app.start()
    send(app.url, ["b"])
    assert sorted(stored_names(app.url)) == ["a", "b"]
