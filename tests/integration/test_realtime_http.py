"""The HTTP door to realtime."""

import pytest

from app.realtime.protocol import Subscribe
from tests.apps import NOW, WRITE_KEY, bearer, error_of, make_app
from tests.unit.realtime.fakes import MemoryTransport

ADMIN = bearer("root", "admin")
SERVICE = bearer("billing", "service")


@pytest.fixture
def app(tmp_path):
    app = make_app(tmp_path)
    app.realtime.bind(MemoryTransport())
    return app


@pytest.fixture
def client(app):
    return app.test_client()


def post(client, path, body, headers=SERVICE):
    return client.post(f"/api/realtime/{path}", json=body, headers=headers)


def test_a_published_message_is_answered_with_its_place(client):
    first = post(client, "publish", {"topic": "t", "payload": {"a": 1}}).json
    second = post(client, "publish", {"topic": "t", "payload": None, "unknown": "field"}).json
    assert first == {"ok": True, "topic": "t", "seq": 1, "epoch": first["epoch"]}
    assert list(first) == ["ok", "topic", "seq", "epoch"]
    assert second == {**first, "seq": 2}


def test_a_repeated_id_of_the_same_caller_is_answered_as_the_first(client):
    body = {"topic": "t", "payload": 1, "id": "m1"}
    first = post(client, "publish", body).json
    assert post(client, "publish", body).json == {**first, "duplicate": True}
    assert post(client, "publish", body, ADMIN).json["seq"] == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (bearer("u1"), 403),
        (bearer("u1", topics={"pub": ["other:*"]}), 403),
        ({"X-Write-Key": WRITE_KEY}, 403),
        (bearer("u1", ttl_s=-60), 401),
        (bearer("u1", topics={"pub": ["t*"]}), 200),
        (SERVICE, 200),
        (ADMIN, 200),
    ],
)
def test_who_may_publish(client, headers, status):
    response = post(client, "publish", {"topic": "t", "payload": 1}, headers)
    assert response.status_code == status
    if status != 200:
        assert error_of(response)["code"] in ("unauthorized", "forbidden", "token_expired")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), (bearer("u1", topics={"pub": ["*"]}), 403), ({"X-Write-Key": WRITE_KEY}, 403), (SERVICE, 200), (ADMIN, 200)],
)
def test_who_may_emit(client, headers, status):
    assert post(client, "emit", {"event": "e", "to": "role:r", "payload": 1}, headers).status_code == status


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"payload": 1}, "topic"),
        ({"topic": "a b", "payload": 1}, "topic"),
        ({"topic": "t\n", "payload": 1}, "topic"),
        ({"topic": 1, "payload": 1}, "topic"),
        ({"topic": "t"}, "payload"),
        ({"topic": "t", "payload": 1, "id": ""}, "id"),
        ({"topic": "t", "payload": 1, "id": 5}, "id"),
        ({"topic": "t", "payload": 1, "id": "x" * 129}, "id"),
    ],
)
def test_a_publish_of_the_wrong_shape_is_400_with_the_path_of_the_mistake(client, body, path):
    response = post(client, "publish", body)
    assert response.status_code == 400
    assert [detail["path"] for detail in error_of(response)["details"]] == [path]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"to": "admin"}, "to"),
        ({"to": "role:"}, "to"),
        ({"to": "role:a\nb"}, "to"),
        ({"to": "role:a\n"}, "to"),
        ({"to": ["role:a"]}, "to"),
        ({"to": None}, "to"),
        ({"event": ""}, "event"),
        ({"event": "x" * 129}, "event"),
        ({"event": "connect"}, "event"),
        ({"event": "disconnect"}, "event"),
        ({"event": "connect_error"}, "event"),
        ({"event": "message"}, "event"),
        ({"event": 1}, "event"),
    ],
)
def test_an_emit_of_the_wrong_shape_is_400_with_the_path_of_the_mistake(app, client, change, path):
    response = post(client, "emit", {"event": "e", "to": "user:u1", "payload": 1, **change})
    assert response.status_code == 400
    assert [detail["path"] for detail in error_of(response)["details"]] == [path]
    assert app.realtime.hub.transport.emitted == []


def test_a_payload_over_the_limit_is_413(client):
    assert error_of(post(client, "publish", {"topic": "t", "payload": "x" * 70_000}))["code"] == "payload_too_large"
    response = post(client, "emit", {"event": "e", "to": "user:u1", "payload": "x" * 70_000})
    assert response.status_code == 413


def test_an_emitted_event_goes_to_its_room(app, client):
    assert post(client, "emit", {"event": "reservation:update", "to": "role:admin", "payload": {"id": 7}}).json == {"ok": True}
    assert app.realtime.hub.transport.emitted == [("reservation:update", {"id": 7}, "role:admin")]


def test_a_flag_that_changes_is_published_on_the_topic_flags(app, client):
    app.extensions["switchyard"].flags.refresh()
    app.realtime.hub.connect("a", app.extensions["switchyard"].gatekeeper.from_headers(ADMIN["Authorization"], None))
    app.realtime.hub.handle("a", Subscribe("flags"), NOW, lambda frame: None)
    response = client.post("/api/flags", json={"key": "new-menu", "enabled": True}, headers=ADMIN)
    assert response.status_code in (200, 201)
    frames = app.realtime.hub.transport.sent["a"]
    assert [(frame["type"], frame["topic"]) for frame in frames] == [("event", "flags")]


def test_both_routes_are_documented_with_their_bodies(client):
    paths = client.get("/openapi.json").json["paths"]
    for path in ("/api/realtime/publish", "/api/realtime/emit"):
        operation = paths[path]["post"]
        assert operation["requestBody"]["required"] is True
        assert operation["security"] == [{"token": []}]
        assert {"200", "default"} <= set(operation["responses"])


def test_health_counts_connections_and_subscriptions(client):
    report = client.get("/healthz", headers=ADMIN).json["dependencies"]["realtime"]
    assert {"state": "up", "connections": 0, "subscriptions": 0, "topics": 0}.items() <= report.items()
