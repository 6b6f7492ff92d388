"""A websocket from its opening to its end, over a real socket. Server and client are greenlets of this process."""

import gevent
import pytest
from gevent import socket

from app.serving import websocket_frames as frames
from app.serving.server import Server
from app.serving.unfinished_bytes import UnfinishedBytes
from tests.unit.serving.websocket_client import frame

OPENING = (
    b"GET /socket.io/%s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ended = []  # the client ports of those that ended in good order


def echo(environ, start_response):
    if environ["PATH_INFO"].endswith("/refused"):
        start_response("429 Too Many Requests", [("Retry-After", "1")])
        return [b"not now"]
    if environ["PATH_INFO"].endswith("/boom"):
        raise RuntimeError("a surprise")
    websocket = environ["wsgi.websocket"]
    websocket.open(("X-Request-Id", "r1"))
    while (message := websocket.receive()) is not None:
        if message == "boom":
            raise RuntimeError("a surprise")
        websocket.send(message)
    ended.append(environ["REMOTE_PORT"])
    return []


@pytest.fixture
def connect():
    server = Server(("127.0.0.1", 0), echo, max_body_bytes=100_000, unfinished=UnfinishedBytes(1_000_000, 200_000))
    server.start()
    sockets = []

    def connect(path=b"", and_then=b""):
        sockets.append(socket.create_connection(("127.0.0.1", server.server_port), timeout=5))
        sockets[-1].sendall(OPENING % path + and_then)
        return sockets[-1]

    connect.server = server
    yield connect
    for each in sockets:
        each.close()
    server.stop(timeout=1)


def read_head(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    return head.decode()


def read_all(client):
    data = b""
    while piece := client.recv(65_536):
        data += piece
    return data


def read_frame(client):
    """(first byte, payload)"""
    first, length = client.recv(1)[0], client.recv(1)[0]
    if length > 125:
        length = int.from_bytes(b"".join(client.recv(1) for _ in range(2 if length == 126 else 8)), "big")
    payload = b""
    while len(payload) < length:
        payload += client.recv(length - len(payload))
    return first, payload


def test_the_opening_is_answered_as_the_rfc_says_and_messages_go_both_ways(connect):
    client = connect(and_then=frame(frames.TEXT, "größer".encode()))
    head = read_head(client)
    assert head.startswith("HTTP/1.1 101 ") and "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "X-Request-Id: r1\r\n" in head
    assert read_frame(client) == (0x81, "größer".encode())
    for size in (0, 200, 70_000):
        client.sendall(frame(frames.BINARY, b"\xff" * size))
        assert read_frame(client) == (0x82, b"\xff" * size)


def test_what_the_application_does_not_open_is_an_ordinary_answer_and_the_connection_ends(connect):
    answer = read_all(connect(b"refused", frame(frames.TEXT, b"hello"))).decode()
    assert answer.startswith("HTTP/1.1 429 ") and answer.endswith("not now")
    assert "Retry-After: 1\r\n" in answer and "Connection: close\r\n" in answer


def test_a_surprise_before_the_opening_is_500_and_one_after_it_ends_the_connection(connect):
    assert read_all(connect(b"boom")).startswith(b"HTTP/1.1 500 ")
    client = connect(and_then=frame(frames.TEXT, b"boom"))
    read_head(client)
    assert read_frame(client)[0] == 0x88
    assert read_all(client) == b""


def test_a_ping_is_answered_with_the_same_words(connect):
    client = connect(and_then=frame(frames.PING, b"are you there"))
    read_head(client)
    assert read_frame(client) == (0x8A, b"are you there")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(frames.CLOSE, b"\x03\xe9"), 1001),
        (frame(frames.CLOSE), 1000),
        (frame(frames.TEXT, b"x", masked=False), 1002),
        (frame(frames.TEXT, b"\xff"), 1007),
        (b"\x81\xff" + (2**40).to_bytes(8, "big"), 1009),
    ],
)
def test_the_end_is_said_with_its_code_and_the_application_learns_of_it(connect, sent, code):
    client = connect(and_then=sent)
    read_head(client)
    assert read_frame(client) == (0x88, code.to_bytes(2, "big"))
    assert read_all(client) == b""
    assert str(client.getsockname()[1]) in ended


def test_a_client_that_is_gone_is_no_surprise(connect):
    client = connect(and_then=b"\x81\x85half")
    read_head(client)
    port = str(client.getsockname()[1])
    client.close()
    with gevent.Timeout(5):
        while port not in ended:
            gevent.sleep(0.01)


def half(size):
    """A frame of `size` bytes without its last one."""
    return frame(frames.BINARY, b"x" * size)[:-1]


def wait_until(true):
    with gevent.Timeout(5):
        while not true():
            gevent.sleep(0.005)


def test_unfinished_frames_have_a_bound_over_all_websockets_and_the_longest_is_closed(connect):
    clients = [connect() for _ in range(4)]
    for client in clients:
        read_head(client)
    unfinished = connect.server.unfinished
    for held, client in enumerate(clients[:2], 1):
        client.sendall(half(90_000))
        wait_until(lambda held=held: unfinished.bytes >= held * 90_000)
    clients[2].sendall(half(60_000))
    assert read_frame(clients[0]) == (0x88, (1013).to_bytes(2, "big"))
    assert unfinished.bytes <= 200_000
    clients[2].sendall(b"x")
    assert len(read_frame(clients[2])[1]) == 60_000
    clients[3].sendall(frame(frames.TEXT, b"short"))
    assert read_frame(clients[3]) == (0x81, b"short")


def test_fragments_count_like_one_long_frame_and_a_whole_message_counts_no_more(connect):
    client = connect()
    read_head(client)
    unfinished = connect.server.unfinished
    client.sendall(frame(frames.BINARY, b"x" * 50_000, final=False))
    wait_until(lambda: unfinished.unknown_bytes >= 50_000)
    client.sendall(frame(frames.CONTINUATION, b"x"))
    assert len(read_frame(client)[1]) == 50_001
    wait_until(lambda: unfinished.bytes == 0)


def test_a_websocket_whose_client_is_known_counts_for_it(connect):
    client = connect()
    read_head(client)
    (connection,) = connect.server.connections
    connection.server.unfinished.identify(connection.unfinished, "user:u1", True)
    client.sendall(half(90_000))
    wait_until(lambda: connect.server.unfinished.bytes >= 90_000)
    assert connect.server.unfinished.unknown_bytes == 0
