"""Durable topics: what the log has lost, and what a restart would lose, comes from MongoDB; while it is away, from the disk."""

import json
import random
import shutil
import threading
import time

import pymongo
import pytest
import requests

from app.sdk.python import RealtimeClient
from tests.apps import SECRET, bearer, token
from tests.integration.realtime_client import Client

SETTINGS = {
    "JWT_SECRET": SECRET,
    "RATE_LIMIT_HTTP": "10000/second",
    "RT_TOPIC_RATE": "10000/second",
    "RT_LOG_MAX_MESSAGES": 10,
    "RT_DURABLE_TOPICS": "orders:*",
    "MONGO_TIMEOUT_MS": 500,
}
TOPIC = "orders:eu"
REMEMBERED_S = 1.1  # for so long /healthz gives an answer again


def publish(app, topic, numbers, **fields):
    body = {"messages": [{"topic": topic, "payload": number, **fields} for number in numbers]}
    answer = requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("billing", "service"), timeout=5).json()
    assert answer["ok"]
    return answer["messages"][-1]


def report(app):
    return requests.get(f"{app.url}/healthz", headers=bearer("root", "admin"), timeout=10).json()["dependencies"]["realtime"]


def wait_until(is_so, within_s=20):
    time.sleep(REMEMBERED_S)
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_saved(app):
    """Wherever that is: nothing is in memory alone."""
    wait_until(lambda: report(app)["archiveWaiting"] == 0)


def wait_until_stored(app):
    wait_until(lambda: (found := report(app))["archiveWaiting"] == 0 == found["archiveSpooledBytes"])


def documents(mongo_uri, topic=TOPIC):
    with pymongo.MongoClient(mongo_uri) as mongo:
        return list(mongo.get_default_database()["realtime_messages"].find({"topic": topic}).sort([("epoch", 1), ("seq", 1)]))


def resume(app, since, epoch, topic=TOPIC):
    """A client that was away, and what it was answered."""
    client = Client(app.url, token("root", "admin"))
    return client, client.say(type="subscribe", topic=topic, since=since, epoch=epoch, ack=False)


def told(client):
    """Every number of which the client knows: by its message, or by a gap. By number: the client hands each frame to a thread of its
    own, so that two may change places in its list."""
    events = sorted((frame["seq"], frame["payload"]) for frame in client.of("event"))
    return events, [(frame["code"], frame.get("from"), frame.get("to")) for frame in client.of("error")]


@pytest.fixture
def behind_a_proxy(mongo_server, mongo_uri, proxy_to):
    """(the MongoDB as the application sees it, how to take it away)"""
    proxy = proxy_to(mongo_server.port)
    return mongo_uri.replace(str(mongo_server.port), str(proxy.port)), proxy


def test_what_the_log_has_lost_comes_from_mongodb_without_a_hole_up_to_what_is_new(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    place = publish(app, TOPIC, range(300))
    publish(app, "chat", range(300))
    wait_until_stored(app)
    client, answer = resume(app, 0, place["epoch"])
    assert (answer["recovered"], answer["seq"], answer["head"]) == (True, 0, 300)
    publish(app, TOPIC, [300])
    client.wait(lambda client: len(client.of("event")) == 301)
    assert told(client) == ([(number + 1, number) for number in range(301)], [])
    assert client.say(type="subscribe", topic="chat", since=0)["reason"] == "history_gap"
    client.close()
    assert documents(mongo_uri, "chat") == []


def test_the_delivery_log_says_who_said_what_when(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    before = time.time()
    place = publish(app, TOPIC, [7], id="order-7")
    wait_until_stored(app)
    (document,) = documents(mongo_uri)
    assert document["ts"].timestamp() == pytest.approx(before, abs=1.5 * 86_400)  # the driver gives UTC without saying so
    expected = {"topic": TOPIC, "epoch": place["epoch"], "seq": 1, "id": "order-7", "userId": "billing", "payload": "7"}
    assert {name: document[name] for name in expected} == expected


def test_after_a_restart_who_resumes_gets_exactly_what_was_missed(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    place = publish(app, TOPIC, range(100))
    app.stop()
    app.start()
    client, answer = resume(app, 40, place["epoch"])
    assert (answer["recovered"], answer["seq"], answer["head"], answer["epoch"]) == (True, 40, 100, place["epoch"])
    assert publish(app, TOPIC, [100]) == {"topic": TOPIC, "seq": 101, "epoch": place["epoch"]}
    client.wait(lambda client: len(client.of("event")) == 61)
    assert told(client) == ([(number + 1, number) for number in range(40, 101)], [])
    client.close()


def test_a_client_that_stays_over_restarts_gets_every_message_once_in_order_and_hears_of_no_gap(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    seen, gaps = [], []
    service = RealtimeClient(app.url, lambda: token("root", "admin"), randomization_factor=0)
    assert service.subscribe(TOPIC, lambda payload, message: seen.append(payload), on_gap=gaps.append).wait(10)
    for first in (0, 100, 200):
        publish(app, TOPIC, range(first, first + 50))
        app.stop()
        app.start()
        publish(app, TOPIC, range(first + 50, first + 100))  # before it is back, or after
    wait_until(lambda: len(seen) >= 300, within_s=60)  # a client that fell repeatedly waits longer before each attempt
    service.close()
    assert (seen, gaps) == (list(range(300)), [])


def test_while_mongodb_is_away_messages_are_kept_on_disk_and_stored_afterwards_once(switchyard, mongo_uri, behind_a_proxy):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    publish(app, TOPIC, range(20))
    wait_until_stored(app)
    proxy.disable()
    started = time.monotonic()
    place = publish(app, TOPIC, range(20, 60))
    assert time.monotonic() - started < 1
    wait_until_saved(app)
    assert (report(app)["state"], report(app)["archiveSpooledBytes"] > 0) == ("degraded", True)
    client, answer = resume(app, 0, place["epoch"])
    assert (answer["recovered"], answer["reason"], answer["seq"]) == (False, "history_gap", 0)
    client.wait(lambda client: len(client.of("event")) == 40)
    assert client.of("error")[0]["retryable"] is True, "once MongoDB is back they can be had"
    assert told(client) == ([(number + 1, number) for number in range(20, 60)], [("history_gap", 1, 20)])
    proxy.enable()
    wait_until_stored(app)
    assert client.say(type="subscribe", topic=TOPIC, since=0, epoch=place["epoch"], ack=False)["recovered"] is True
    client.wait(lambda client: len(client.of("event")) == 100)
    assert sorted(client.payloads()[40:]) == list(range(60))
    client.close()
    assert [(document["seq"], document["payload"]) for document in documents(mongo_uri)] == [(n + 1, str(n)) for n in range(60)]
    assert list((app.data_dir / "realtime").glob("messages-*")) == []
    assert "Traceback" not in app.log


def test_an_answer_that_is_lost_stores_nothing_twice(switchyard, mongo_uri, behind_a_proxy):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    publish(app, TOPIC, range(5))
    wait_until_stored(app)
    with proxy.toxic("timeout", timeout=0):
        publish(app, TOPIC, range(5, 50))
        wait_until_saved(app)
    wait_until_stored(app)
    assert [document["payload"] for document in documents(mongo_uri)] == [str(number) for number in range(50)]


def test_with_the_disk_full_too_publishing_goes_on_and_memory_holds_it(switchyard, mongo_uri, behind_a_proxy, small_disk):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, DATA_DIR=small_disk.folder, **SETTINGS)
    place = publish(app, TOPIC, range(20))
    proxy.disable()
    small_disk.fill()
    for first in range(20, 200, 20):
        publish(app, TOPIC, range(first, first + 20))
        time.sleep(0.1)
    wait_until(lambda: report(app)["archiveWaiting"] > 100)
    small_disk.free()
    wait_until_saved(app)
    proxy.enable()
    wait_until_stored(app)
    stored = [document["seq"] for document in documents(mongo_uri) if document["epoch"] == place["epoch"]]
    assert stored == list(range(1, 201))
    assert "Traceback" not in app.log


def test_killed_while_mongodb_is_away_what_was_on_disk_is_stored_by_the_next_process(switchyard, mongo_uri, behind_a_proxy):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    place = publish(app, TOPIC, range(20))
    wait_until_stored(app)
    proxy.disable()
    publish(app, TOPIC, range(20, 60))
    wait_until_saved(app)
    app.kill()
    app.start()
    assert publish(app, TOPIC, [60])["seq"] == 61, "the numbering needs no MongoDB to go on"
    proxy.enable()
    wait_until_stored(app)
    client, answer = resume(app, 5, place["epoch"])
    assert answer["recovered"] is True
    client.wait(lambda client: len(client.of("event")) == 56)
    assert told(client) == ([(number + 1, number) for number in range(5, 61)], [])
    client.close()


def test_stopped_while_mongodb_is_away_nothing_is_lost(switchyard, mongo_uri, behind_a_proxy):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    place = publish(app, TOPIC, range(5))
    with proxy.toxic("timeout", timeout=0):
        publish(app, TOPIC, range(5, 300))
        assert app.stop() < 10
        app.start()
    wait_until_stored(app)
    client, _ = resume(app, 0, place["epoch"])
    client.wait(lambda client: len(client.of("event")) == 300)
    assert told(client) == ([(number + 1, number) for number in range(300)], [])
    client.close()


def test_killed_again_and_again_under_load_no_number_is_given_twice_and_nothing_is_passed_over(switchyard, mongo_uri, behind_a_proxy):
    """What kill -9 may cost is what was published in the last moments before it, and then a gap says so."""
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    published, stop = {}, threading.Event()

    def load():
        number = 0
        while not stop.is_set():
            number += 1
            try:
                place = publish(app, TOPIC, [number])
            except (requests.RequestException, AssertionError):
                continue
            assert (place["epoch"], place["seq"]) not in published, "a number was given twice"
            published[place["epoch"], place["seq"]] = (number, time.monotonic())

    loader = threading.Thread(target=load)
    loader.start()
    kills = []
    for round_ in range(4):
        proxy.disable() if round_ % 2 else proxy.enable()
        time.sleep(random.uniform(0.8, 2.0))
        kills.append(time.monotonic())
        app.kill()
        app.start()
    proxy.enable()
    time.sleep(0.5)
    stop.set()
    loader.join()
    wait_until_stored(app)
    (epoch,) = {epoch for epoch, _ in published}
    stored = {document["seq"]: int(document["payload"]) for document in documents(mongo_uri)}
    for (_, seq), (number, at) in published.items():
        if seq in stored:
            assert stored[seq] == number
        else:
            assert any(kill - 2.5 < at < kill + 0.5 for kill in kills), f"{seq} is missing and nobody was killed"
    head = max(seq for _, seq in published)
    client, answer = resume(app, 0, epoch)
    client.wait(lambda client: max((seq for seq, _ in told(client)[0]), default=0) >= head, within_s=20)
    events, gaps = told(client)
    assert answer["recovered"] is (not gaps)
    known = {seq for seq, _ in events} | {seq for _, first, last in gaps for seq in range(first, last + 1)}
    assert known >= set(range(1, head + 1))
    assert {seq for seq, _ in events} >= stored.keys() & set(range(1, head + 1))
    assert len(events) == len({seq for seq, _ in events})
    client.close()


def stored_payloads(mongo_uri):
    return sorted(int(document["payload"]) for document in documents(mongo_uri))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_with_a_mongodb_that_is_merely_slow_what_was_acknowledged_outlives_the_process(switchyard, mongo_uri, behind_a_proxy, end):
    uri, proxy = behind_a_proxy
    app = switchyard(MONGO_URI=uri, **{**SETTINGS, "MONGO_TIMEOUT_MS": 1500})
    with proxy.toxic("latency", latency=400):
        for first in range(0, 4000, 400):
            publish(app, TOPIC, range(first, first + 400))
        if end == "kill":
            time.sleep(2.2)  # 0.3 s and MONGO_TIMEOUT_MS, and something for a machine that is busy
            app.kill()
        else:
            app.stop()
    app.start()
    wait_until_stored(app)
    assert stored_payloads(mongo_uri) == list(range(4000))


def test_what_is_published_while_the_process_drains_is_stored_or_refused(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    acknowledged, stop = [], threading.Event()

    def load(first):
        for number in range(first, first + 10_000):
            if stop.is_set():
                return
            try:
                publish(app, TOPIC, [number])
            except (requests.RequestException, AssertionError):
                continue
            acknowledged.append(number)

    loaders = [threading.Thread(target=load, args=(first,)) for first in range(0, 40_000, 10_000)]
    [loader.start() for loader in loaders]
    time.sleep(0.7)
    app.stop()
    stop.set()
    [loader.join() for loader in loaders]
    app.start()
    wait_until_stored(app)
    assert len(acknowledged) > 20
    assert set(acknowledged) - set(stored_payloads(mongo_uri)) == set()


def test_a_publisher_that_repeats_an_id_over_a_restart_gets_the_first_answer(switchyard, mongo_uri):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    for number, end in enumerate(("stop", "kill")):
        first = publish(app, TOPIC, [number], id=f"order-{number}")
        if end == "kill":
            wait_until_saved(app)
        getattr(app, end)()
        app.start()
        assert publish(app, TOPIC, [number], id=f"order-{number}") == {**first, "duplicate": True}
    wait_until_stored(app)
    assert stored_payloads(mongo_uri) == [0, 1]


def test_a_message_that_mongodb_refuses_for_good_is_put_aside_and_those_behind_it_are_stored(switchyard, mongo_uri):
    with pymongo.MongoClient(mongo_uri) as mongo:
        mongo.get_default_database()["realtime_messages"].create_index("payload", unique=True)
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    publish(app, TOPIC, [1, 1, 2])
    wait_until_stored(app)
    assert stored_payloads(mongo_uri) == [1, 2]
    (row,) = (app.data_dir / "realtime" / "messages.rejected").read_text().splitlines()
    assert json.loads(json.loads(row)["line"])["seq"] == 2
    assert '"archive_message_refused"' in app.log
    assert 'realtime_archived_total{fate="refused"} 1.0' in app.metrics().text


def test_over_a_data_directory_that_was_put_back_from_a_copy_no_number_names_two_messages(switchyard, mongo_uri, tmp_path):
    app = switchyard(MONGO_URI=mongo_uri, **SETTINGS)
    before = publish(app, TOPIC, range(10))
    app.stop()
    shutil.copytree(app.data_dir, tmp_path / "copy")
    app.start()
    publish(app, TOPIC, range(10, 30))
    app.stop()
    shutil.rmtree(app.data_dir)
    shutil.copytree(tmp_path / "copy", app.data_dir)
    app.start()
    after = publish(app, TOPIC, range(30, 50))
    assert after["epoch"] != before["epoch"]
    assert '"topics_begin":"new epochs"' in app.log and '"level":"error"' in app.log
    client, answer = resume(app, 15, before["epoch"])
    assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
    client.close()
    wait_until_stored(app)
    assert stored_payloads(mongo_uri) == list(range(50))
