"""/realtime as a stock client meets it: over every transport, under both servers."""

import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, token
from tests.integration.realtime_client import Client
from tests.servers.real import real
from tests.servers.switchyard import Switchyard

TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def app(request):
    with real(Switchyard, request.param, JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}", RATE_LIMIT_HTTP="10000/second") as running:
        yield running


@pytest.fixture
def admin(connect):
    return connect(token("root", "admin"))


@pytest.fixture
def topic(request):
    """A topic of the test's own on the shared process."""
    return f"test:{abs(hash(request.node.name))}"


def post(app, path, body, **identity):
    return requests.post(f"{app.url}/api/realtime/{path}", json=body, headers={"Authorization": f"Bearer {token(**identity)}"}, timeout=5)


@pytest.mark.parametrize("transports", TRANSPORTS.values(), ids=TRANSPORTS)
def test_subscribing_publishing_and_receiving_work_over_every_transport(connect, topic, transports):
    client = connect(token("root", "admin"), transports=transports)
    assert client.transport == transports[-1]
    subscribed = client.say(type="subscribe", topic=topic, id="s")
    assert {"type": "ack", "id": "s", "ok": True, "topic": topic, "seq": 0}.items() <= subscribed.items()
    payload = {"text": "größer 😀", "list": [1, None]}
    published = client.say(type="publish", topic=topic, id="p", payload=payload)
    assert published == {"type": "ack", "id": "p", "ok": True, "topic": topic, "seq": 1, "epoch": subscribed["epoch"]}
    event = client.wait_for("event")
    assert abs(event.pop("ts") - time.time() * 1000) < 10_000
    assert event == {"type": "event", "topic": topic, "payload": payload, "id": "p", "seq": 1, "epoch": subscribed["epoch"]}


def test_without_a_callback_the_answer_comes_as_a_message(admin, topic):
    admin.emit("message", {"type": "subscribe", "topic": topic, "id": "s"})
    admin.emit("message", {"type": "publish", "topic": topic, "id": "p", "payload": 1})
    admin.wait(lambda client: len(client.frames) == 3)
    assert [(frame["type"], frame["id"]) for frame in admin.frames] == [("ack", "s"), ("event", "p"), ("ack", "p")]


def test_a_resumed_subscription_is_answered_first_then_replayed_then_live(admin, connect, topic):
    for number in range(1, 6):
        admin.say(type="publish", topic=topic, id=f"m{number}", payload=number)
    epoch = admin.say(type="publish", topic=topic, id="m6", payload=6)["epoch"]
    late = connect(token("late", topics={"sub": [topic]}))
    late.emit("message", {"type": "subscribe", "topic": topic, "since": 3, "epoch": epoch})
    assert late.is_alive()
    admin.say(type="publish", topic=topic, id="m7", payload=7)
    late.wait_for("event", 4)
    assert [frame.get("seq") for frame in late.frames] == [3, 4, 5, 6, 7]
    assert late.frames[0]["recovered"] is True and late.frames[0]["head"] == 6


def test_resuming_in_another_epoch_is_answered_with_a_reason_and_an_error_frame(admin, topic):
    admin.say(type="publish", topic=topic, id="m1", payload=1)
    answer = admin.say(type="subscribe", topic=topic, since=5, epoch="of-another-life", id="s")
    assert (answer["ok"], answer["recovered"], answer["reason"]) == (True, False, "epoch_changed")
    error = admin.wait_for("error")
    assert (error["code"], error["topic"], error["id"], error["retryable"]) == ("epoch_changed", topic, "s", False)
    assert admin.wait_for("event")["seq"] == 1


def test_every_subscriber_sees_the_same_order(connect, topic):
    clients = [connect(token(f"u{number}", "admin"), transports=transports) for number, transports in enumerate(TRANSPORTS.values())]
    for client in clients:
        client.say(type="subscribe", topic=topic)
    for number in range(1, 16):
        for client in clients:
            client.emit("message", {"type": "publish", "topic": topic, "id": f"m{number}", "payload": number})
        for client in clients:  # by rounds, since python-socketio's client refuses a poll of more than 16 packets
            client.wait_for("event", 3 * number)
    for client in clients:
        assert [frame["seq"] for frame in client.of("event")] == list(range(1, 46))
    orders = [[(frame["id"], frame["seq"]) for frame in client.of("event")] for client in clients]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "subscribe", "topic": "a b", "id": "x"}, "bad_request"),
        ({"type": "publish", "topic": "t", "id": "x", "payload": "x" * 70_000}, "payload_too_large"),
        ({"type": "publish", "topic": "t", "id": "x", "payload": {"file": b"bytes"}}, "bad_request"),
        ({"type": "subscribe", "topic": "user:somebody", "id": "x"}, "forbidden"),
        ({"type": "publish", "topic": "notice:all", "id": "x", "payload": 1}, "forbidden"),
        ({"type": "unsubscribe", "topic": "flags", "id": "x"}, "unknown_topic"),
        ({"type": "ack", "topic": "flags", "seq": 1, "id": "x"}, "unknown_topic"),
    ],
)
def test_what_is_wrong_is_answered_with_its_code_and_the_connection_stays(connect, frame, code):
    client = connect(token("u1"))
    answer = client.say(**frame)
    assert (answer["type"], answer["code"], answer["id"], answer["retryable"]) == ("error", code, "x", False)
    client.emit("message", frame)
    assert client.wait_for("error")["code"] == code
    assert client.is_alive()


@pytest.mark.parametrize("arguments", [[], [None], ["text"], [1], [[]], [{"type": "subscribe", "topic": "flags"}, "and more"], [b"binary"]])
def test_a_message_that_is_no_frame_is_a_bad_request(connect, arguments):
    client = connect(token("u1"))
    client.emit("message", *arguments)
    assert client.wait_for("error")["code"] == "bad_request"


def test_an_event_of_an_unknown_name_is_a_bad_request(connect):
    client = connect(token("u1"))
    assert client.sio.call("nonsense", {"a": 1}, namespace="/realtime", timeout=5)["code"] == "bad_request"
    client.emit("trigger_event", "x")
    assert client.wait_for("error")["code"] == "bad_request"


def test_an_ack_in_order_is_silent_unless_somebody_calls_back(admin, topic):
    admin.say(type="subscribe", topic=topic)
    admin.say(type="publish", topic=topic, id="m", payload=1)
    admin.emit("message", {"type": "ack", "topic": topic, "seq": 1})
    assert admin.say(type="ack", topic=topic, seq=1) == {"type": "ack", "ok": True}
    assert admin.say(type="ack", id="m")["code"] == "bad_ack"
    assert [frame["type"] for frame in admin.frames] == ["event"]


@pytest.mark.parametrize("namespace", ["/realtime", "/"])
def test_ping_is_answered_by_pong(connect, namespace):
    client = connect(token("u1"), namespace=namespace)
    client.emit("ping")
    name, pong = client.wait(lambda client: client.others)[0]
    assert name == "pong" and abs(pong["ts"] - time.time() * 1000) < 10_000
    assert client.is_alive()


@pytest.mark.parametrize("namespace", ["/realtime", "/"])
@pytest.mark.parametrize(
    ("credential", "code"),
    [
        (None, "unauthorized"),
        ("nonsense", "unauthorized"),
        ("", "unauthorized"),
        (12, "unauthorized"),
        (token("u1", ttl_s=-60), "token_expired"),
        (WRITE_KEY, "forbidden"),
    ],
)
def test_who_brings_no_valid_token_is_refused_with_the_error_of_the_catalogue(connect, namespace, credential, code):
    client = connect(namespace=namespace, auth={"token": credential})
    error = client.refusal["data"]
    assert (error["code"], error["retryable"]) == (code, False)
    assert client.refusal["message"] == error["message"]


def test_a_token_may_come_in_a_header_or_in_the_query(connect, app):
    assert connect(headers={"Authorization": f"Bearer {token('u1')}"}).is_alive()
    by_query = Client(f"{app.url}?token={token('u1')}", transports=["polling"])
    assert by_query.is_alive()
    by_query.close()


@pytest.mark.parametrize("namespace", ["/realtime", "/"])
def test_a_business_event_reaches_the_room_of_a_role_and_of_a_user_and_nobody_else(app, connect, namespace):
    editor = connect(token("e1", ["editor", "author"]), namespace=namespace)
    reader = connect(token("r1", "reader"), namespace=namespace)
    for to, number in (("role:author", 1), ("role:editor", 2), ("user:e1", 3), ("user:nobody", 4), ("role:e1", 5)):
        body = {"event": "reservation:update", "to": to, "payload": {"number": number}}
        assert post(app, "emit", body, sub="billing", role="service").json() == {"ok": True}
    editor.wait(lambda client: len(client.others) == 3)
    assert editor.others == [("reservation:update", {"number": number}) for number in (1, 2, 3)]
    assert reader.is_alive() and reader.others == []


def test_what_is_published_over_http_reaches_subscribers(app, admin, topic):
    admin.say(type="subscribe", topic=topic)
    answer = post(app, "publish", {"topic": topic, "payload": [1], "id": "m"}, sub="billing", role="service").json()
    event = admin.wait_for("event")
    assert (event["payload"], event["seq"], event["epoch"], event["id"]) == ([1], answer["seq"], answer["epoch"], "m")


def test_a_changed_flag_is_not_needed_to_subscribe_to_flags(connect):
    assert connect(token("u1")).say(type="subscribe", topic="flags")["ok"]


def test_lone_halves_of_surrogate_pairs_do_not_hurt(admin, topic):
    admin.say(type="subscribe", topic=topic)
    admin.say(type="publish", topic=topic, id="m", payload="cut \ud83d")
    assert admin.wait_for("event")["payload"] == "cut \ufffd"


def test_connections_and_subscriptions_are_counted_and_given_back(app, connect, topic):
    def health():
        return app_health(app)

    before = health()
    client = connect(token("root", "admin"))
    client.say(type="subscribe", topic=topic)
    counts = wait_until(health, lambda now: now["connections"] == before["connections"] + 1)
    assert (counts["state"], counts["subscriptions"]) == ("up", before["subscriptions"] + 1)
    client.close()
    wait_until(health, lambda now: now["connections"] == before["connections"] and now["subscriptions"] == before["subscriptions"])


def test_no_token_appears_in_the_log(app, connect):
    secret = token("logged-user")
    connect(secret).say(type="subscribe", topic="flags")
    by_query = Client(f"{app.url}?token={secret}", transports=["polling"])
    by_query.close()
    assert "logged-user" in app.log
    assert secret not in app.log and secret.split(".")[2] not in app.log


def app_health(app):
    headers = {"Authorization": f"Bearer {token('root', 'admin')}"}
    return requests.get(f"{app.url}/healthz", headers=headers, timeout=5).json()["dependencies"]["realtime"]


def wait_until(get, is_right, within_s=5):
    deadline = time.monotonic() + within_s
    while not is_right(value := get()):
        assert time.monotonic() < deadline, value
        time.sleep(0.1)
    return value
