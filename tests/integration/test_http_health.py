"""What an orchestrator and a person are told about the state of things, with real dependencies that come and go."""

import time

import pytest

from app import create_app
from app.wiring import build
from tests.apps import bearer, error_of, make_app, make_settings

ADMIN = bearer("root", "admin")


def fresh(client, path="/healthz", **options):
    """Answers are kept for a second; ask for one that is newer than this moment."""
    client.application.extensions["switchyard"].health._asked_at = 0
    return client.get(path, **options)


def state_of(client, name):
    return fresh(client).get_json()["dependencies"][name]["state"]


def wait_for(client, name, state, within_s=10):
    deadline = time.monotonic() + within_s
    while state_of(client, name) != state:
        assert time.monotonic() < deadline, fresh(client, headers=ADMIN).get_json()
        time.sleep(0.1)


@pytest.fixture
def app(tmp_path):
    app = make_app(tmp_path)
    app.extensions["switchyard"].flags.refresh()  # as the start does
    return app


@pytest.fixture
def client(app):
    return app.test_client()


def test_alone_it_is_alive_and_ready_and_up(client):
    assert client.get("/livez").get_json() == {"ok": True}
    assert client.get("/readyz").get_json() == {"ok": True}
    health = client.get("/healthz").get_json()
    assert (health["ok"], health["status"]) == (True, "up")
    assert {"spool", "flags", "realtime"} <= health["dependencies"].keys()


def test_anybody_sees_states_and_latencies_and_an_admin_the_details(client):
    public, admin = client.get("/healthz").get_json()["dependencies"], client.get("/healthz", headers=ADMIN).get_json()["dependencies"]
    assert all(set(row) == {"state", "latencyMs"} for row in public.values())
    assert admin["spool"]["maxBytes"] > 0
    for nobody_special in (bearer("u1"), bearer("s", "service"), {"Authorization": "Bearer wrong"}):
        assert client.get("/healthz", headers=nobody_special).get_json()["dependencies"].keys() == public.keys()
        assert "maxBytes" not in client.get("/healthz", headers=nobody_special).get_json()["dependencies"]["spool"]


def test_while_it_drains_it_is_alive_and_not_ready(app, client):
    app.extensions["switchyard"].lifecycle.drain(1)
    assert client.get("/livez").status_code == 200
    ready, health = client.get("/readyz"), client.get("/healthz")
    for answer in (ready, health):
        assert (answer.status_code, error_of(answer)["code"]) == (503, "unavailable")
    assert health.get_json()["status"] == "down"
    assert health.get_json()["dependencies"]["spool"]["state"] == "up"


def test_it_is_not_ready_when_no_event_can_be_made_durable(tmp_path, client):
    spool = tmp_path / "data" / "spool"
    spool.parent.mkdir(exist_ok=True)
    spool.write_text("a file where the folder should be")
    refused = client.post("/api/telemetry/batch", json={"app": "web", "events": [{"type": "page", "name": "/"}]}, headers=ADMIN)
    assert error_of(refused)["code"] == "storage_full"
    answer = fresh(client, "/readyz")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "unavailable")
    assert fresh(client).get_json()["status"] == "down"


@pytest.fixture
def with_servers(tmp_path, own_mongo, own_redis):
    settings = make_settings(tmp_path, mongo_uri=own_mongo.new_database(), mongo_timeout_ms=1000, redis_url=own_redis.url)
    return create_app(settings, build(settings)).test_client()


def test_mongo_and_redis_are_seen_to_go_and_to_come_back(with_servers, own_mongo, own_redis):
    client = with_servers
    states = {name: row["state"] for name, row in fresh(client).get_json()["dependencies"].items()}
    assert states["redis"] == "up" and states["mongo"] in ("up", "degraded")
    own_redis.kill()
    own_mongo.kill()
    started = time.monotonic()
    gone = fresh(client, headers=ADMIN)
    assert time.monotonic() - started < 3
    body = gone.get_json()
    assert (gone.status_code, body["ok"], body["status"]) == (200, True, "degraded")  # the spool still takes events
    for name in ("mongo", "redis"):
        assert body["dependencies"][name]["state"] == "down" and body["dependencies"][name]["error"]
    assert fresh(client, "/readyz").status_code == 200
    metrics = client.get("/metrics").text
    assert 'dependency_up{dependency="mongo"} 0.0' in metrics and 'dependency_up{dependency="spool"} 1.0' in metrics
    own_redis.start()
    own_mongo.start()
    wait_for(client, "redis", "up")
    wait_for(client, "mongo", states["mongo"])


def test_a_redis_that_says_nothing_is_down_within_its_patience(with_servers, own_redis):
    own_redis.pause()
    started = time.monotonic()
    assert state_of(with_servers, "redis") == "down"
    assert time.monotonic() - started < 2
    own_redis.resume()


def test_a_host_of_keys_that_refuses_us_is_a_dependency_that_is_down_and_no_reason_to_get_no_traffic(tmp_path):
    client = make_app(tmp_path, jwt_jwks_url="http://127.0.0.1:9/keys").test_client()
    health = client.get("/healthz").get_json()
    assert (health["dependencies"]["jwks"]["state"], health["status"]) == ("down", "degraded")
    assert client.get("/readyz").status_code == 200


def test_without_a_host_of_keys_there_is_no_such_dependency(tmp_path):
    assert "jwks" not in make_app(tmp_path).test_client().get("/healthz").get_json()["dependencies"]
