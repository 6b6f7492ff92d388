"""Durable topics: replays that reach further back than the log, with MongoDB there, away, and back again."""

import time

import pymongo
import requests

from tests.apps import SECRET, bearer, token
from tests.integration.realtime_client import Client

SETTINGS = {
    "JWT_SECRET": SECRET,
    "RATE_LIMIT_HTTP": "10000/second",
    "RT_TOPIC_RATE": "10000/second",
    "RT_LOG_MAX_MESSAGES": 10,
    "RT_DURABLE_TOPICS": "orders:*",
}


def publish(app, topic, numbers):
    body = {"messages": [{"topic": topic, "payload": number} for number in numbers]}
    answer = requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("billing", "service"), timeout=5).json()
    assert answer["ok"]
    return answer["messages"][-1]


def waiting(app):
    report = requests.get(f"{app.url}/healthz", headers=bearer("root", "admin"), timeout=10).json()
    return report["dependencies"]["realtime"]["archiveWaiting"]


def wait_until_stored(app):
    deadline = time.monotonic() + 20
    while waiting(app):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_the_log_has_lost_comes_from_mongodb_in_order_before_anything_newer(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    place = publish(app, "orders:eu", range(300))
    publish(app, "chat", range(300))
    wait_until_stored(app)
    client = Client(app.url, token("root", "admin"))
    answer = client.say(type="subscribe", topic="orders:eu", since=0, epoch=place["epoch"], ack=False)
    assert (answer["recovered"], answer["seq"], answer["head"]) == (True, 0, 300)
    publish(app, "orders:eu", [300])
    client.wait(lambda client: len(client.of("event")) == 301)
    assert [(frame["seq"], frame["payload"]) for frame in client.of("event")] == [(number + 1, number) for number in range(301)]
    assert client.of("error") == []
    assert client.say(type="subscribe", topic="chat", since=0)["reason"] == "history_gap"
    client.close()
    with pymongo.MongoClient(mongo_uri) as mongo:
        assert mongo.get_default_database()["realtime_messages"].count_documents({"topic": {"$ne": "orders:eu"}}) == 0


def test_while_mongodb_is_away_publishing_goes_on_and_is_stored_afterwards(switchyard, own_mongo):
    app = switchyard(MONGO_URI=own_mongo.uri_of("durable"), MONGO_TIMEOUT_MS=500, **SETTINGS)
    publish(app, "orders:eu", range(20))
    wait_until_stored(app)
    own_mongo.stop()
    started = time.monotonic()
    place = publish(app, "orders:eu", range(20, 60))
    assert time.monotonic() - started < 1
    client = Client(app.url, token("root", "admin"))
    client.say(type="subscribe", topic="orders:eu", since=0, epoch=place["epoch"], ack=False)
    gap = client.wait_for("error")
    assert (gap["code"], gap["from"], gap["to"]) == ("history_gap", 1, 50)
    client.wait(lambda client: len(client.of("event")) == 10)
    own_mongo.start()
    wait_until_stored(app)
    client.say(type="subscribe", topic="orders:eu", since=0, epoch=place["epoch"], ack=False)
    client.wait(lambda client: len(client.of("event")) == 70)
    assert [frame["payload"] for frame in client.of("event")][10:] == list(range(60))
    client.close()
    assert "Traceback" not in app.log
