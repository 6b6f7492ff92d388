"""The HTTP door to realtime."""

import time

import pytest

from app.realtime.protocol import Subscribe
from tests.apps import NOW, WRITE_KEY, Clock, bearer, error_of, make_app
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


# What one user's grant may use up

GRANTED = bearer("mallory", topics={"pub": ["*"]})
WITHOUT_RATES = {"rate_limit_http": "1000000/second", "rt_topic_rate": "1000000/second"}


def test_ten_requests_with_a_thousand_new_topics_each_leave_the_history_and_the_epoch_of_a_notice(tmp_path):
    app = make_app(tmp_path, **WITHOUT_RATES)
    client = app.test_client()
    notice = post(client, "publish", {"topic": "notice:global", "payload": "maintenance"}).json
    other = post(client, "publish", {"topic": "ann:1", "payload": 1}, bearer("ann", topics={"pub": ["ann:*"]})).json
    for round_ in range(10):
        messages = [{"topic": f"new:{round_}:{number}", "payload": 1} for number in range(1000)]
        assert post(client, "publish", {"messages": messages}, GRANTED).status_code == 200
    assert post(client, "publish", {"topic": "new:last", "payload": 1}, GRANTED).status_code == 200
    answers = []
    app.realtime.hub.connect("a", app.extensions["switchyard"].gatekeeper.from_headers(ADMIN["Authorization"], None))
    for place in (notice, other):
        app.realtime.hub.handle("a", Subscribe(place["topic"], since=0, epoch=place["epoch"]), NOW, answers.append)
    assert [(answer["recovered"], answer["seq"], answer["head"]) for answer in answers] == [(True, 0, 1), (True, 0, 1)]


def test_a_hundred_and_one_requests_with_a_thousand_ids_each_leave_the_ids_of_others(tmp_path):
    app = make_app(tmp_path, **WITHOUT_RATES)
    client, body, ann = app.test_client(), {"topic": "t", "payload": 1, "id": "m1"}, bearer("ann", topics={"pub": ["t"]})
    callers = (SERVICE, ann)
    first = [post(client, "publish", body, caller).json for caller in callers]
    mallory = app.extensions["switchyard"].gatekeeper.from_headers(GRANTED["Authorization"], None)
    for round_ in range(101):  # what the route does with each request, without the ten seconds that HTTP takes for it
        app.realtime.publish_as(mallory, [{"topic": "t", "payload": 1, "id": f"{round_}:{number}"} for number in range(1000)])
    assert [post(client, "publish", body, caller).json for caller in callers] == [{**answer, "duplicate": True} for answer in first]


def many(count, topic="t"):
    return {"messages": [{"topic": topic, "payload": 1}] * count}


def test_each_message_of_a_request_counts_as_a_request_of_its_caller(tmp_path):
    client = make_app(tmp_path, rate_limit_http="10/minute", rt_topic_rate="1000/second").test_client()
    assert post(client, "publish", many(6)).status_code == 200
    refused = post(client, "publish", many(6))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
    assert client.get("/api/flags", headers=SERVICE).status_code == 429
    assert post(client, "publish", many(6), ADMIN).status_code == 200, "another user has a rate of their own"


def test_a_request_with_more_messages_than_the_rate_allows_at_once_is_paid_for_by_the_ones_after_it(tmp_path):
    clock = Clock()
    client = make_app(tmp_path, parts={"clock": clock}, rate_limit_http="100/second", rt_topic_rate="1000/second").test_client()
    assert post(client, "publish", many(300)).status_code == 200
    time.sleep(1.1)  # the window of the request rate is over, the debt is not: this clock stands still
    assert error_of(post(client, "publish", many(1)))["code"] == "rate_limited"
    clock.pass_ms(2020)
    assert post(client, "publish", many(1)).status_code == 200


def test_each_message_counts_against_the_rate_of_its_topic(tmp_path):
    client = make_app(tmp_path, rate_limit_http="1000/second", rt_topic_rate="10/second").test_client()
    assert post(client, "publish", many(6)).status_code == 200
    assert post(client, "publish", many(6)).status_code == 429
    assert post(client, "publish", many(6, "other")).status_code == 200
