"""`mongodb+srv://` where DNS is away: like a MongoDB that is away, and never a reason not to start."""

import os
import signal
import time

import pymongo
import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer
from tests.servers.dns import ZONE, Dns
from tests.waiting import wait_until

ADMIN = bearer("root", "admin")
BATCH = {"app": "web", "events": [{"type": "page", "name": "/"}]}


@pytest.fixture
def dns(tmp_path):
    server = Dns(tmp_path / "dns")
    yield server
    server.close()


def stored_in(app):
    answer = requests.post(f"{app.url}/api/telemetry/batch", json=BATCH, headers={"X-Write-Key": WRITE_KEY}, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["storage"]


@pytest.mark.parametrize("by", ["gunicorn", "flask"])
def test_a_server_starts_and_spools_while_dns_is_away_and_drains_when_it_answers(switchyard, dns, mongo_uri, by):
    server, _, database = mongo_uri.removeprefix("mongodb://").partition("/")
    uri = f"mongodb+srv://{ZONE}/{database}?tls=false"
    started = time.monotonic()
    settings = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}", "MONGO_URI": uri, "MONGO_TIMEOUT_MS": 300}
    app = switchyard(by, **settings, **dns.environment())
    assert time.monotonic() - started < 8
    assert stored_in(app) == "spool"
    health = requests.get(f"{app.url}/healthz", headers=ADMIN, timeout=10).json()
    assert health["dependencies"]["mongo"]["state"] == "down" and "cannot be resolved" in health["dependencies"]["mongo"]["error"]
    assert requests.get(f"{app.url}/readyz", timeout=10).ok
    if by == "gunicorn":
        (worker,) = app.workers
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: app.workers not in ([], [worker]) and app.answers())
        assert stored_in(app) == "spool"
    dns.leads_to = int(server.rpartition(":")[2])
    wait_until(lambda: stored_in(app) == "mongo")
    with pymongo.MongoClient(mongo_uri) as client:
        spooled = 2 if by == "gunicorn" else 1
        wait_until(lambda: client[database.partition("?")[0]].telemetry_events.count_documents({}) > spooled)
    assert "Traceback" not in app.log
