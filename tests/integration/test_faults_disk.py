"""The disk under the spool is full, cannot be written to, or has something strange on it; and later it is well again."""

import json

import requests

from tests.apps import WRITE_KEY, error_of
from tests.integration.telemetry_clients import ADMIN, SETTINGS, Clients, assert_kept, health, stored_names, wait_until_drained
from tests.servers.ports import free_port
from tests.unit.telemetry.spool.test_chunks import line
from tests.waiting import wait_until


def send(app, name, size=100):
    body = {"app": "web", "events": [{"type": "event", "name": name, "props": {"text": "x" * size}}]}
    return requests.post(f"{app.url}/api/telemetry/batch", json=body, headers={"X-Write-Key": WRITE_KEY}, timeout=10)


def is_ready(app):
    return requests.get(f"{app.url}/readyz", timeout=5).status_code == 200


def spooled_names(app):
    page = requests.get(f"{app.url}/api/telemetry/events?limit=1000", headers=ADMIN, timeout=10).json()
    return [event["name"] for event in page["events"]]


def fill_up(app):
    """The names that were answered as saved before the first refusal, and the refusal."""
    saved = []
    while True:
        response = send(app, f"n{len(saved)}", size=20_000)
        if response.status_code != 200:
            return saved, response
        saved.append(f"n{len(saved)}")


def test_a_full_disk_is_a_503_until_there_is_room_again_and_keeps_what_was_saved(switchyard, small_disk):
    app = switchyard(DATA_DIR=small_disk.folder, **SETTINGS)
    small_disk.fill(but_for_bytes=300_000)
    saved, refusal = fill_up(app)
    assert len(saved) > 5
    error = error_of(refusal)
    assert (refusal.status_code, error["code"], error["retryable"]) == (503, "storage_full", True)
    for _ in range(20):
        send(app, "again", size=20_000)
    assert len(list((small_disk.folder / "spool").glob("events-*"))) < 5, "a refusal leaves no file behind"
    wait_until(lambda: not is_ready(app))
    small_disk.free()
    wait_until(lambda: is_ready(app))
    assert send(app, "after").status_code == 200
    assert set(spooled_names(app)) >= {*saved, "after"}


def test_a_disk_that_fills_up_under_load_while_mongo_is_away_keeps_what_was_saved(
    switchyard, small_disk, mongo_server, mongo_uri, proxy_to
):
    proxy = proxy_to(mongo_server.port)
    uri = mongo_uri.replace(str(mongo_server.port), str(proxy.port))
    app = switchyard(MONGO_URI=uri, DATA_DIR=small_disk.folder, SPOOL_SEGMENT_BYTES=50_000, **SETTINGS)
    app.data_dir = small_disk.folder
    proxy.disable()
    small_disk.fill(but_for_bytes=200_000)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("storage_full", 0) > 5)
        wait_until(lambda: not is_ready(app))
        proxy.enable()
        clients.until(lambda: clients.answers.get("mongo", 0) > 20)
        wait_until(lambda: is_ready(app))  # MongoDB takes everything, however full the disk is
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)


def test_a_disk_that_cannot_be_written_to_is_a_503_until_it_can(switchyard, small_disk):
    app = switchyard(DATA_DIR=small_disk.folder, **SETTINGS)
    with small_disk.read_only():
        response = send(app, "a")
        assert (response.status_code, error_of(response)["code"]) == (503, "storage_full")
        wait_until(lambda: not is_ready(app))
    wait_until(lambda: is_ready(app))
    assert send(app, "b").status_code == 200
    assert spooled_names(app) == ["b"]


def test_a_spool_at_its_limit_says_so_before_it_is_and_refuses_when_it_is(switchyard):
    uri = f"mongodb://127.0.0.1:{free_port()}/x"
    app = switchyard(MONGO_URI=uri, SPOOL_MAX_BYTES=500_000, **{**SETTINGS, "MONGO_TIMEOUT_MS": 50})  # nobody is there to wait for
    seen = set()
    for number in range(60):
        response = send(app, f"n{number}", size=25_000)
        spool = health(app.url)["spool"]
        seen.add((spool["state"], is_ready(app)))
        if response.status_code == 503:
            break
    assert error_of(response)["code"] == "storage_full"
    wait_until(lambda: health(app.url)["spool"]["state"] == "down" and not is_ready(app))
    assert ("degraded", True) in seen
    assert spool["bytes"] <= 500_000


def test_lines_that_something_spoilt_are_put_aside_and_everything_else_arrives(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    spoilt = app.data_dir / "spool" / "events-0000000000001-1-a.jsonl"
    half = app.data_dir / "half"
    half.write_bytes(line("a") + b"\0" * 500 + b"\n" + line("b")[:20] + b"\n" + b"\xff\xfe\n" + line("c") + line("torn")[:-7])
    half.rename(spoilt)
    wait_until_drained(app)
    assert sorted(stored_names(mongo_uri)) == ["a", "c"]
    rows = [json.loads(row) for row in spoilt.with_name(spoilt.name + ".rejected").read_text().splitlines()]
    assert len(rows) == 4 and all(row["reason"] for row in rows)
    assert health(app.url)["spool"]["rejected"] == 4
    assert "spool_rejected_lines_total 4.0" in app.metrics().text
