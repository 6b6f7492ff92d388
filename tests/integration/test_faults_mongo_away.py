"""MongoDB goes and comes back under load: what was answered as saved is in it exactly once when the spool is empty."""

import requests
from pymongo import MongoClient

from tests.integration.telemetry_clients import ADMIN, SETTINGS, Clients, assert_kept, health, wait_until_drained
from tests.waiting import wait_until


def test_kill_9_of_mongod_and_its_return_lose_nothing_and_double_nothing(switchyard, own_mongo):
    uri = own_mongo.new_database()
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("mongo", 0) > 20)
        own_mongo.kill()
        clients.until(lambda: clients.answers.get("spool", 0) > 20)
        assert health(app.url)["spool"]["state"] == "degraded"
        own_mongo.start()
        clients.until(lambda: health(app.url)["spool"]["drained"] > 0)
    wait_until_drained(app)
    assert_kept(clients, uri)
    assert clients.slowest_s < 5
    wait_until(lambda: health(app.url)["spool"]["state"] == "up")


def test_what_an_embedded_server_gathered_moves_to_mongo_once_there_is_one(switchyard, mongo_uri):
    app = switchyard(SPOOL_SEGMENT_BYTES=20_000, **SETTINGS)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("spool", 0) > 60)
    app.kill()
    app.settings["MONGO_URI"] = mongo_uri
    app.start()
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)
    assert health(app.url)["spool"]["rejected"] <= 1, "at most the line that the kill cut through"


def test_flags_and_configurations_of_an_embedded_server_move_to_mongo_once_there_is_one(switchyard, mongo_uri, redis_url):
    """As events do; by all workers, and with what MongoDB has under the same name left alone."""
    app = switchyard(**SETTINGS)
    for key in ("ours", "theirs"):
        assert requests.post(f"{app.url}/api/flags", json={"key": key, "enabled": True}, headers=ADMIN, timeout=10).ok
    assert requests.put(f"{app.url}/api/telemetry/config/web", json={"deny": ["secret*"]}, headers=ADMIN, timeout=10).ok
    app.stop()
    with MongoClient(mongo_uri) as client:
        client.get_default_database().flags.insert_one({"_id": "theirs", "key": "theirs", "enabled": False, "rules": {}, "version": 5})
    app.settings |= {"MONGO_URI": mongo_uri, "WEB_CONCURRENCY": 2, "REDIS_URL": redis_url}
    app.start()
    listed = requests.get(f"{app.url}/api/flags?all=true", headers=ADMIN, timeout=10).json()["flags"]
    assert {flag["key"]: flag["enabled"] for flag in listed} == {"ours": True, "theirs": False}
    config = requests.get(f"{app.url}/api/telemetry/config/web", headers=ADMIN, timeout=10).json()
    assert config["overrides"] == {"deny": ["secret*"]}
    assert app.log.count("embedded_file_moved") == 2
    assert {path.name for path in app.data_dir.glob("*.moved")} == {"flags.json.moved", "telemetry_config.json.moved"}
