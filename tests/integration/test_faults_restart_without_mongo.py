"""A process that starts while MongoDB is away goes by what MongoDB last said to any process of the same DATA_DIR."""

import pytest
import requests

from tests.apps import WRITE_KEY
from tests.integration.telemetry_clients import ADMIN, SETTINGS, health
from tests.waiting import wait_until

QUICK = {**SETTINGS, "FLAGS_REFRESH_MS": 200, "TELEMETRY_CONFIG_REFRESH_MS": 1000}
CONFIG, FLAGS = "/api/telemetry/config/web", "/api/flags"
FLAG = {"key": "new", "enabled": True, "rules": {"percent": 100}, "description": "é"}


def ask(app, method, path, body=None):
    return requests.request(method, f"{app.url}{path}", json=body, headers=ADMIN, timeout=10)


def send(app, name):
    body = {"app": "web", "events": [{"type": "event", "name": name}]}
    return requests.post(f"{app.url}/api/telemetry/batch", json=body, headers={"X-Write-Key": WRITE_KEY}, timeout=10).json()


def served(app):
    answer = ask(app, "GET", FLAGS).json()
    return {flag["key"]: flag["on"] for flag in answer["flags"]}


@pytest.fixture
def app(switchyard, own_mongo):
    app = switchyard(MONGO_URI=own_mongo.new_database(), **QUICK)
    assert ask(app, "PUT", CONFIG, {"deny": ["secret*"]}).status_code == 200
    assert ask(app, "POST", FLAGS, FLAG).status_code == 201
    return app


def test_what_was_denied_stays_denied_and_flags_are_served_until_mongo_is_back(app, own_mongo):
    own_mongo.kill()
    app.kill()
    app.start()
    assert [send(app, "secret.x")["saved"], send(app, "fine")["saved"]] == [0, 1]
    assert served(app) == {"new": True}
    assert ask(app, "PATCH", f"{FLAGS}/new", {"enabled": False}).status_code == 503
    parts = health(app.url)
    assert parts["flags"]["state"] == parts["telemetry_config"]["state"] == "degraded"
    assert parts["flags"]["snapshotAgeMs"] > 0 and parts["telemetry_config"]["copyAsOf"].startswith("20")
    assert "local_copy_used" in app.log
    own_mongo.start()
    wait_until(lambda: health(app.url)["flags"]["state"] == health(app.url)["telemetry_config"]["state"] == "up")
    assert "copyAsOf" not in health(app.url)["telemetry_config"]
    assert ask(app, "PATCH", f"{FLAGS}/new", {"enabled": False}).status_code == 200
    assert served(app) == {}


def test_a_change_by_another_hand_is_in_the_copy_after_a_refresh(app, own_mongo):
    with own_mongo.client() as client:
        database = client[app.settings["MONGO_URI"].rsplit("/", 1)[-1]]
        database.telemetry_config.update_one({"_id": "web"}, {"$set": {"deny": ["private*"]}})
        database.flags.delete_many({})
    wait_until(lambda: served(app) == {} and send(app, "secret.x")["saved"] == 1)
    own_mongo.kill()
    app.restart()
    assert [send(app, "secret.x")["saved"], send(app, "private.x")["saved"]] == [1, 0]
    assert served(app) == {}


def test_a_broken_copy_is_a_warning_and_the_server_starts_as_if_there_were_none(app, own_mongo):
    own_mongo.kill()
    app.stop()
    for path in (app.data_dir / "snapshots").glob("*.json"):
        path.write_text("{")
    app.start()
    assert send(app, "secret.x")["saved"] == 1
    assert ask(app, "GET", FLAGS).status_code == 503
    assert app.log.count("local_copy_ignored") >= 2


def test_an_embedded_server_that_is_given_a_mongo_that_is_away_goes_by_its_files_until_they_are_moved(switchyard, own_mongo):
    app = switchyard(**QUICK)
    assert ask(app, "PUT", CONFIG, {"deny": ["secret*"]}).ok and ask(app, "POST", FLAGS, FLAG).ok
    app.stop()
    app.settings["MONGO_URI"] = own_mongo.new_database()
    own_mongo.kill()
    app.start()
    assert (send(app, "secret.x")["saved"], served(app)) == (0, {"new": True})
    own_mongo.start()
    wait_until(lambda: health(app.url)["flags"]["state"] == health(app.url)["telemetry_config"]["state"] == "up")
    wait_until(lambda: not list(app.data_dir.glob("flags.json")) and not list(app.data_dir.glob("telemetry_config.json")))
    assert (send(app, "secret.x")["saved"], served(app)) == (0, {"new": True})
