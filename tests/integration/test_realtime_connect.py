"""How clients connect, with all that stands between: twice in a row, through half a proxy, with subprotocols, from our own page."""

import base64
import json
import time

import pytest
import requests
import websocket

from tests.apps import SECRET, error_of, token
from tests.servers.real import real
from tests.servers.switchyard import Switchyard

ALICE = token("alice", topics={"sub": ["a:*"], "pub": ["a:*"]})
ALICE_LATER = token("alice", ttl_s=7200, topics={"sub": ["a:*"], "pub": ["a:*"]})
BOB = token("bob")
SUBSCRIBE = '42/realtime,["message",{"type":"subscribe","topic":"a:1"}]'
PUBLISH = '42/realtime,["message",{"type":"publish","topic":"a:1","id":"%s","payload":1}]'


@pytest.fixture(scope="module")
def app():
    settings = {"CORS_ORIGINS": "https://app.example.com", "RATE_LIMIT_HTTP": "10000/second"}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **settings) as running:
        yield running
        assert "Traceback" not in running.log


def packet(text):
    """(head, value) of a Socket.IO packet."""
    begin = next((index for index, sign in enumerate(text) if sign in "[{"), len(text))
    return text[:begin], json.loads(text[begin:]) if text[begin:] else None


def connect_text(token_text, **auth):
    return "40/realtime," + json.dumps({"token": token_text, **auth})


def test_a_second_connect_of_the_same_user_is_answered_with_the_same_place_and_all_that_is_subscribed_stays(raw):
    connection = raw(json.dumps({"token": ALICE}), joins=False)
    first = packet(connection.recv())
    connection.send(SUBSCRIBE)
    assert packet(connection.recv())[1][1]["type"] == "ack"
    for again in (ALICE, ALICE_LATER):
        connection.send(connect_text(again))
        assert packet(connection.recv()) == first
    connection.send(PUBLISH % "m")
    assert [packet(connection.recv())[1][1]["type"] for _ in range(2)] == ["event", "ack"]


def test_two_connects_at_once_are_two_answers_of_one_place(raw):
    connection = raw(auth=None)
    for _ in range(2):
        connection.send(connect_text(ALICE))
    assert connection.recv() == connection.recv()


def test_a_resume_with_the_second_connect_is_resumed(raw):
    connection = raw(json.dumps({"token": ALICE, "resume": {"a:2": {}}}))
    assert packet(connection.recv())[1][1]["topic"] == "a:2"
    connection.send(connect_text(ALICE, resume={"a:3": {}}))
    assert connection.recv().startswith("40/realtime,{")
    assert packet(connection.recv())[1][1]["topic"] == "a:3"


def test_a_second_connect_of_another_user_is_another_place_with_nothing_of_the_first(raw):
    connection = raw(json.dumps({"token": ALICE}), joins=False)
    first = packet(connection.recv())
    connection.send(SUBSCRIBE)
    connection.recv()
    connection.send(connect_text(BOB))
    second = packet(connection.recv())
    assert second[0] == "40/realtime," and second[1]["sid"] != first[1]["sid"]
    connection.send('42/realtime,["message",{"type":"unsubscribe","topic":"a:1"}]')
    assert packet(connection.recv())[1][1]["code"] == "unknown_topic"


@pytest.mark.parametrize("wrong", ['{"token":"nonsense"}', "", "[["])
def test_a_second_connect_with_a_wrong_token_is_refused_and_the_first_place_is_given_up(app, raw, wrong):
    connection = raw(json.dumps({"token": ALICE}))
    connection.send(f"40/realtime,{wrong}")
    assert connection.recv().startswith('44/realtime,{"message"')
    connection.send(connect_text(ALICE))
    assert connection.recv().startswith("40/realtime,{")


def test_the_second_connect_works_in_the_namespace_of_rooms_too(raw):
    connection = raw(auth=None)
    connection.send(f'40{{"token":"{ALICE}"}}')
    first = connection.recv()
    connection.send(f'40{{"token":"{ALICE_LATER}"}}')
    assert connection.recv() == first


def test_a_polling_client_gets_the_same_answers(app):
    url = f"{app.url}/socket.io/?EIO=4&transport=polling"
    url += f"&sid={json.loads(requests.get(url, timeout=5).text[1:])['sid']}"
    requests.post(url, data=f"{connect_text(ALICE)}\x1e{connect_text(ALICE)}\x1e40/nowhere,", timeout=5)
    first, second, nowhere = requests.get(url, timeout=5).text.split("\x1e")
    assert first == second and first.startswith("40/realtime,{")
    assert "no such namespace" in packet(nowhere)[1]["message"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n "], ids=["LF", "CRLF", "folded"])
def test_base64_with_line_breaks_as_java_writes_it_is_read(app, line_break):
    url = f"{app.url}/socket.io/?EIO=4&transport=polling"
    url += f"&sid={json.loads(requests.get(url, timeout=5).text[1:])['sid']}"
    text = base64.b64encode(bytes(300)).decode()
    lines = line_break.join(text[begin : begin + 76] for begin in range(0, len(text), 76)) + line_break
    binary = '451-/realtime,["message",{"type":"publish","topic":"a:1","id":"b","payload":{"_placeholder":true,"num":0}}]'
    assert requests.post(url, data=f"{connect_text(ALICE)}\x1e{binary}\x1eb{lines}", timeout=5).status_code == 200
    joined, refused = requests.get(url, timeout=5).text.split("\x1e")
    assert packet(refused)[1][1]["id"] == "b" and packet(refused)[1][1]["code"] == "bad_request"
    assert requests.post(url, data='42/realtime,7["ping"]', timeout=5).status_code == 200
    assert requests.get(url, timeout=5).text.startswith("43/realtime,7[")


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["x"], "x"), (["v1.chat", "v2"], "v1.chat"), ([], None)], ids=["one", "the first of two", "none"]
)
def test_a_client_that_offers_subprotocols_gets_one_of_them(app, offered, chosen):
    url = f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket"
    connection = websocket.create_connection(url, timeout=5, subprotocols=offered or None)
    assert connection.handshake_response.subprotocol == chosen
    assert connection.recv().startswith("0{")
    connection.shutdown()


def own_origins(app):
    return [(f"127.0.0.1:{app.port}", f"http://127.0.0.1:{app.port}"), (f"127.0.0.1:{app.port}", f"https://127.0.0.1:{app.port}"),
            ("shop.test", "https://shop.test"), ("shop.test:443", "https://shop.test"), ("SHOP.test", "http://shop.test:80")]  # fmt: skip


FOREIGN = [
    "https://evil.test",
    "https://shop.test.evil.test",
    "http://shop.test:81",
    "null",
    "http://[",
    "https://app.example.com.evil.test",
]


@pytest.mark.parametrize("number", range(5))
def test_a_page_of_our_own_origin_may_connect_whatever_is_listed(app, number):
    host, origin = own_origins(app)[number]
    headers = {"Host": host, "Origin": origin}
    assert requests.get(f"{app.url}/socket.io/?EIO=4&transport=polling", headers=headers, timeout=5).status_code == 200
    url = f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket"
    websocket.create_connection(url, timeout=5, host=host, origin=origin).shutdown()


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_origin_may_not(app, origin):
    headers = {"Host": "shop.test", "Origin": origin}
    response = requests.get(f"{app.url}/socket.io/?EIO=4&transport=polling", headers=headers, timeout=5)
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_a_listed_origin_may_connect(app):
    headers = {"Host": "shop.test", "Origin": "https://app.example.com"}
    response = requests.get(f"{app.url}/socket.io/?EIO=4&transport=polling", headers=headers, timeout=5)
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


def test_subscribing_unsubscribing_and_closing_are_lines_with_user_topic_and_reason(app, raw):
    begin = len(app.log)
    connection = raw(json.dumps({"token": ALICE}))
    connection.send(SUBSCRIBE)
    connection.recv()
    connection.send(SUBSCRIBE.replace("subscribe", "unsubscribe"))
    connection.recv()
    connection.send(SUBSCRIBE.replace("a:1", "b:1"))
    connection.recv()
    connection.send("nonsense")
    deadline = time.monotonic() + 5
    while '"disconnected"' not in app.log[begin:]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lines = [json.loads(line) for line in app.log[begin:].splitlines() if line.startswith("{")]
    ours = {line["event"]: line for line in lines if line.get("user") == "alice"}
    assert ours["subscribed"]["topic"] == ours["unsubscribed"]["topic"] == "a:1"
    assert (ours["frame_refused"]["error"], ours["frame_refused"]["topic"]) == ("forbidden", "b:1")
    assert ours["connected"]["connection_id"] == ours["disconnected"]["connection_id"]
    assert ours["disconnected"]["reason"]
