"""Rooms across processes, by Flask-SocketIO's own queue on Redis."""

import time

import pytest
import requests
from flask_socketio import SocketIO

from tests.apps import SECRET, bearer, error_of, token
from tests.integration.realtime_client import Client

SERVICE = bearer("billing", "service")


def emit(app, number):
    body = {"event": "reservation:update", "to": "role:editor", "payload": number}
    return requests.post(f"{app.url}/api/realtime/emit", json=body, headers=SERVICE, timeout=10)


def numbers(client):
    return [payload for event, payload in client.others if event == "reservation:update"]


@pytest.fixture
def connect():
    clients = []

    def connect(app, count, **options):
        clients.extend(Client(app.url, token(f"u{number}", "editor"), **options) for number in range(count))
        return clients[-count:]

    yield connect
    for client in clients:
        client.close()


def test_an_event_emitted_in_any_worker_or_any_other_process_reaches_the_clients_of_all(switchyard, redis_url, connect):
    app = switchyard(JWT_SECRET=SECRET, REDIS_URL=redis_url, WEB_CONCURRENCY=2)
    clients = connect(app, 6) + connect(app, 6, namespace="/")
    for number in range(4):
        assert emit(app, number).json() == {"ok": True}
    outside = SocketIO(message_queue=redis_url)
    for namespace in ("/", "/realtime"):
        outside.emit("reservation:update", 4, to="role:editor", namespace=namespace)
    for client in clients:
        client.wait(lambda client: len(numbers(client)) == 5)
        assert sorted(numbers(client)) == [0, 1, 2, 3, 4]


def test_while_redis_is_gone_an_emit_is_503_and_connections_stay(switchyard, own_redis, connect):
    app = switchyard(JWT_SECRET=SECRET, REDIS_URL=own_redis.url)
    (client,) = connect(app, 1)
    assert emit(app, 0).status_code == 200
    own_redis.stop()
    refused = emit(app, 1)
    assert refused.status_code == 503
    assert (refused.json()["error"]["code"], refused.json()["error"]["retryable"]) == ("unavailable", True)
    assert refused.headers["Retry-After"] == "1"
    assert client.is_alive() and client.say(type="subscribe", topic="flags")["ok"]
    own_redis.start()
    assert emit(app, 2).status_code == 200
    client.wait(lambda client: 2 in numbers(client))
    assert client.connects == 1


def test_while_redis_hangs_an_emit_is_503_within_two_seconds_and_nobody_else_waits(switchyard, own_redis, connect):
    app = switchyard(JWT_SECRET=SECRET, REDIS_URL=own_redis.url)
    (client,) = connect(app, 1)
    assert emit(app, 0).status_code == 200
    own_redis.pause()
    try:
        started = time.monotonic()
        refused = emit(app, 1)
        assert time.monotonic() - started < 2.5  # half a second of it is the rate limit's, which finds out, too
        assert (refused.status_code, error_of(refused)["code"]) == (503, "unavailable")
        assert client.is_alive()
    finally:
        own_redis.resume()
    client.wait(lambda client: emit(app, 2).status_code == 200 and 2 in numbers(client))
    assert client.connects == 1
