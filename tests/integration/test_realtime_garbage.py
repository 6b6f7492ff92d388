"""What is not our protocol ends where it comes in: its transport is closed, nobody else notices, no traceback is logged."""

import contextlib
import json
import random
import socket
import time

import pytest
import requests
import websocket

from tests.apps import error_of, token

TOKEN = token("u1")


@pytest.fixture(scope="module")
def app(unlimited_app):
    return unlimited_app


def is_closed(connection):
    """True as soon as the server hangs up; what it says before is passed over."""
    try:
        while connection.recv():
            pass
    except (websocket.WebSocketConnectionClosedException, ConnectionError):
        pass
    except websocket.WebSocketTimeoutException:
        return False
    return True


ENGINE_GARBAGE = ["", "x", "9", "hello", "-1", "\u0664", "b!!!", "0{}junk" * 100]
SOCKET_GARBAGE = [
    "4", "4x", "49", "42", "42{}", "42[]", "42[1]", "42[null]", "42/realtime,", "42/realtime,{}", "42/realtime,[]", "42/realtime,[[]]",
    "42/realtime,[1]", '42/realtime,["message"', '42/realtime,["connect",{}]', '42/realtime,["disconnect"]',
    '42/realtime,["connect_error",1]',
    "4true", "4null", "4[]", '4{"a":1}', '4""', "44/realtime,{}", "451-/realtime,",
    '459999999999-/realtime,["message"]', '4599-/realtime,["message"]',
    "42" + "9" * 101 + '["message"]', "42/realtime," + "[" * 100_000
]  # fmt: skip


@pytest.mark.parametrize("text", ENGINE_GARBAGE)
def test_what_is_no_engine_io_packet_closes_the_websocket(raw, bystander, text):
    connection = raw()
    connection.send(text)
    assert is_closed(connection)


@pytest.mark.parametrize("text", SOCKET_GARBAGE)
def test_what_is_no_socket_io_packet_closes_the_websocket_at_once_or_is_passed_over(raw, bystander, text):
    connection = raw()
    connection.send(text)
    connection.send('42/realtime,7["ping"]')
    closed_or_answered(connection)


def closed_or_answered(connection):
    try:
        while text := connection.recv():
            if text.startswith("43/realtime,7[{"):
                return
    except (websocket.WebSocketConnectionClosedException, ConnectionError):
        return


def test_an_attachment_that_does_not_exist_is_refused_as_any_binary_is(raw, bystander):
    connection = raw()
    connection.send('451-/realtime,["message",{"_placeholder":true,"num":9}]')
    connection.send_binary(b"x")
    assert '"bad_request"' in connection.recv()
    connection.send('42/realtime,7["ping"]')
    assert connection.recv().startswith("43/realtime,7[{")


@pytest.mark.parametrize("text", ['42/realtime,["ping"]', "41/realtime,", '451-/realtime,["message",{"_placeholder":true,"num":0}]'])
def test_another_packet_where_an_attachment_is_due_closes_the_websocket(raw, bystander, text):
    connection = raw()
    connection.send('452-/realtime,["message",{"_placeholder":true,"num":0}]')
    connection.send_binary(b"x")
    connection.send(text)
    assert is_closed(connection)


@pytest.mark.parametrize("text", ["41", "41,", "41/,", "41/other,"])
def test_leaving_a_namespace_that_was_not_joined_closes_nothing(raw, bystander, text):
    connection = raw()
    connection.send(text)
    connection.send('42/realtime,7["ping"]')
    assert connection.recv().startswith("43/realtime,7[{")


@pytest.mark.parametrize("key", ["t{}", "not a topic {}"])
def test_an_ack_of_more_topics_than_a_connection_may_have_is_refused_by_their_count(raw, bystander, key):
    connection = raw()
    acks = {key.format(number): 1 for number in range(5000)}
    connection.send("42/realtime," + json.dumps(["message", {"type": "ack", "acks": acks}]))
    assert "acks has 5000 topics" in connection.recv()


def test_binary_out_of_the_blue_closes_the_websocket(raw, bystander):
    connection = raw()
    connection.send_binary(b"\x00\xff" * 10)
    assert is_closed(connection)


def test_a_message_over_the_limit_closes_the_websocket_before_it_is_read(raw, bystander):
    connection = raw()
    header = b"\x81" + bytes([0x80 | 127]) + (2**40).to_bytes(8, "big") + b"mask"
    connection.sock.sendall(header)
    assert is_closed(connection)


def test_a_message_in_fragments_over_the_limit_closes_the_websocket(raw, bystander):
    connection = raw()
    with contextlib.suppress(ConnectionError):
        connection.send_frame(websocket.ABNF.create_frame("4" * 400_000, websocket.ABNF.OPCODE_TEXT, fin=0))
        for _ in range(5):
            connection.send_frame(websocket.ABNF.create_frame("x" * 400_000, websocket.ABNF.OPCODE_CONT, fin=0))
    assert is_closed(connection)


@pytest.mark.parametrize("frame", [b"\xf1\x80mask", b"\x83\x80mask", b"\x81\x85maskhello\xff", b"\x80\x80mask", b"\x88\x81maskx"])
def test_what_is_no_websocket_frame_closes_the_websocket(raw, bystander, frame):
    connection = raw()
    connection.sock.sendall(frame)
    connection.sock.shutdown(socket.SHUT_WR)
    assert is_closed(connection)


def test_random_bytes_on_many_websockets_leave_everybody_else_alone(raw, bystander):
    dice = random.Random(7)
    for _ in range(40):
        connection = raw(**({} if dice.random() < 0.5 else {"auth": None}))
        connection.sock.sendall(dice.randbytes(dice.randrange(1, 500)))
        connection.shutdown()


def test_a_flood_of_wrong_frames_is_answered_each_and_delays_nobody(raw, bystander):
    flooder = raw()
    flooder.send('42/realtime,["message",{"type":"subscribe","topic":"a b"}]')
    packet = '42/realtime,["message",{"type":"nonsense"}]'
    frame = websocket.ABNF.create_frame(packet, websocket.ABNF.OPCODE_TEXT).format()
    flooder.sock.setblocking(False)
    slowest, sent = 0.0, 0
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            sent += flooder.sock.send(frame * 500)
        started = time.perf_counter()
        assert bystander.is_alive()
        slowest = max(slowest, time.perf_counter() - started)
    assert sent > 500 * len(frame)
    assert slowest < 0.5


def poll(app, body=None, session=None, **options):
    query = "?EIO=4&transport=polling" + (f"&sid={session}" if session else "")
    return requests.request("GET" if body is None else "POST", f"{app.url}/socket.io/{query}", data=body, timeout=5, **options)


@pytest.fixture
def session(app):
    sid = poll(app).text.split('"sid":"')[1].split('"')[0]
    assert poll(app, f'40/realtime,{{"token":"{TOKEN}"}}', sid).status_code == 200
    assert poll(app, session=sid).text.startswith("40/realtime,{")
    return sid


NO_PAYLOADS = [
    b"x",
    b"9",
    b"hello",
    b"\xff\xfe",
    b"4\x1e",
    b"\x1e4",
    b"d",
    b"c=4",
    b"0",
    b"2",
    b"6",
    b"",
    b"3\x1e" * 10_000 + b"3",
    b"b!!!",
    b"d=4",
]


@pytest.mark.parametrize("body", NO_PAYLOADS)
def test_a_polled_body_that_is_no_payload_is_400_and_ends_the_session(app, bystander, session, body):
    assert poll(app, body, session).status_code == 400
    assert poll(app, session=session).status_code == 400


@pytest.mark.parametrize("packet", [b"42{}", b'42/realtime,["disconnect"]', b"4x", b"44/realtime,1"])
def test_a_polled_packet_that_is_no_socket_io_ends_the_session(app, bystander, session, packet):
    poll(app, packet, session)
    assert poll(app, session=session).status_code == 400


def test_a_polled_body_over_the_limit_is_400_and_ends_the_session(app, bystander, session):
    assert poll(app, b"4" * 512_001, session).status_code == 400
    assert poll(app, session=session).status_code == 400


@pytest.mark.parametrize("query", ["EIO=3", "transport=pigeon", "transport=websocket", "sid=x", "sid=%00%ff", "j=x"])
def test_a_handshake_that_is_none_is_400_in_the_shape_of_the_catalogue(app, bystander, query):
    url = f"{app.url}/socket.io/?{'' if 'EIO' in query else 'EIO=4&'}{query}"
    for response in (requests.get(url, timeout=5), requests.post(url, data="4", timeout=5)):
        assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_many_packets_in_one_poll_are_all_handled(app, session):
    pings = "\x1e".join(f'42/realtime,{number}["ping"]' for number in range(1000))
    assert poll(app, pings, session).status_code == 200
    assert poll(app, session=session).text.count("43/realtime,") == 1000


def test_a_message_in_endless_fragments_ends_its_connection(raw, bystander):
    connection = raw(auth=None)
    connection.send_frame(websocket.ABNF.create_frame("", websocket.ABNF.OPCODE_TEXT, fin=0))
    with contextlib.suppress(OSError, websocket.WebSocketException):
        for _ in range(600):
            connection.send_frame(websocket.ABNF.create_frame("", websocket.ABNF.OPCODE_CONT, fin=0))
    assert is_closed(connection)


def test_a_session_has_one_websocket_however_often_it_is_upgraded(app, bystander):
    session = json.loads(requests.get(f"{app.url}/socket.io/?EIO=4&transport=polling", timeout=5).text[1:])["sid"]
    url = f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket&sid={session}"
    silent = websocket.create_connection(url, timeout=5)
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(url, timeout=5)
    assert caught.value.status_code == 400
    silent.shutdown()
