"""The client for services in Python, against a running server."""

import threading
import time

import pytest
import requests

from app.sdk.python import ConnectRefused, PublishFailed, RealtimeClient, SubscribeFailed
from app.sdk.python.connection import Connection
from tests.apps import SECRET, bearer, token
from tests.servers.real import real
from tests.servers.switchyard import Switchyard


@pytest.fixture
def app():
    settings = {"RATE_LIMIT_HTTP": "10000/second", "RT_TOPIC_RATE": "100000/second", "RT_LOG_MAX_MESSAGES": 6000, "JWT_LEEWAY_S": 0}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **settings) as running:
        yield running


@pytest.fixture
def client(app):
    client = RealtimeClient(app.url, lambda: token("root", "admin"), randomization_factor=0)
    yield client
    client.close()


def wait(is_there, within_s=40):
    deadline = time.monotonic() + within_s
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def publish(app, numbers):
    body = {"messages": [{"topic": "t", "payload": number} for number in numbers]}
    answer = requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("billing", "service"), timeout=5).json()
    assert [place["topic"] for place in answer["messages"]] == ["t"] * len(numbers)


def test_messages_come_in_order_through_abrupt_ends_and_are_acknowledged(app, client):
    seen = []
    assert client.subscribe("t", lambda payload, message: seen.append((message["seq"], payload))).wait(10)
    for first in range(0, 1000, 50):
        publish(app, range(first, first + 50))
        if first % 200 == 0 and client.sio.connected:
            client.sio.eio.ws.sock.close()
        time.sleep(0.02)
    wait(lambda: len(seen) == 1000)
    assert seen == [(number + 1, number) for number in range(1000)]


def test_hundreds_of_messages_in_the_answer_to_one_poll_all_arrive(app, monkeypatch):
    body = {"messages": [{"topic": "polled", "payload": number} for number in range(300)]}
    answer = requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("billing", "service"), timeout=5).json()
    attempt, seen = Connection._attempt, []
    monkeypatch.setattr(Connection, "_attempt", lambda self, _transports: attempt(self, ["polling"]))
    client = RealtimeClient(app.url, lambda: token("root", "admin"))
    place = {"since": 0, "epoch": answer["messages"][0]["epoch"]}
    assert client.subscribe("polled", lambda payload, _: seen.append(payload), **place).wait(10)
    wait(lambda: len(seen) == 300)
    client.close()
    assert seen == list(range(300))


def test_a_restart_is_told_and_a_publish_waits_for_it(app, client):
    seen, gaps, answers = [], [], []
    assert client.subscribe("t", lambda payload, message: seen.append(payload), on_gap=gaps.append).wait(10)
    publish(app, [1])
    wait(lambda: seen == [1])
    app.kill()
    publishing = threading.Thread(target=lambda: answers.append(client.publish("t", 2)))
    publishing.start()
    app.start()
    publishing.join(20)
    wait(lambda: seen == [1, 2])
    assert answers[0]["seq"] == 1
    assert {"topic": "t", "reason": "epoch_changed"} in gaps


def test_a_publish_while_an_expired_token_is_renewed_waits_for_the_fresh_one(app):
    is_renewing, tokens = threading.Event(), iter([token("root", "admin", ttl_s=2)])

    def slow_token():
        first = next(tokens, None)
        if first is None:
            is_renewing.set()
            time.sleep(0.5)
        return first or token("root", "admin")

    client = RealtimeClient(app.url, slow_token, randomization_factor=0)
    assert is_renewing.wait(10)
    assert client.publish("t", 1)["seq"] == 1
    client.close()


def test_more_topics_at_once_than_the_rate_allows_all_come_to_stand(client):
    assert all(each.wait(20) for each in [client.subscribe(f"t:{n}", print) for n in range(128)])
    with pytest.raises(SubscribeFailed, match="128 topics"):
        client.subscribe("late", print).wait(10)


def test_what_may_not_be_published_raises_at_once(client):
    with pytest.raises(PublishFailed) as caught:
        client.publish("not a topic", 1)
    assert caught.value.answer["code"] == "bad_request"


def test_a_token_that_is_not_taken_raises_what_the_server_said(app):
    with pytest.raises(ConnectRefused) as caught:
        RealtimeClient(app.url, "no token", randomization_factor=0)
    assert caught.value.answer["code"] == "unauthorized" and caught.value.answer["message"] in str(caught.value)
