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
ended = []  # the client ports of the websockets for which the application returned


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
        sockets.append(socket.create_connection(("127.0.0.1", server.server_port), timeout=30))
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


def test_an_open_websocket_carries_messages_both_ways(connect):
    client = connect(and_then=frame(frames.TEXT, "größer".encode()))
    head = read_head(client)
    assert head.startswith("HTTP/1.1 101 ") and "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "X-Request-Id: r1\r\n" in head
    assert read_frame(client) == (0x81, "größer".encode())
    for size in (0, 200, 70_000):
        client.sendall(frame(frames.BINARY, b"\xff" * size))
        assert read_frame(client) == (0x82, b"\xff" * size)


def test_an_application_that_does_not_open_the_websocket_answers_in_http_and_the_connection_closes(connect):
    answer = read_all(connect(b"refused", frame(frames.TEXT, b"hello"))).decode()
    assert answer.startswith("HTTP/1.1 429 ") and answer.endswith("not now")
    assert "Retry-After: 1\r\n" in answer and "Connection: close\r\n" in answer


def test_an_exception_before_the_opening_answers_500_and_a_later_one_closes_the_websocket(connect):
    assert read_all(connect(b"boom")).startswith(b"HTTP/1.1 500 ")
    client = connect(and_then=frame(frames.TEXT, b"boom"))
    read_head(client)
    assert read_frame(client)[0] == 0x88
    assert read_all(client) == b""


def test_a_pong_repeats_the_payload_of_its_ping(connect):
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
def test_a_close_or_a_broken_frame_is_answered_with_a_close_code_and_ends_receive(connect, sent, code):
    client = connect(and_then=sent)
    read_head(client)
    assert read_frame(client) == (0x88, code.to_bytes(2, "big"))
    assert read_all(client) == b""
    wait_until(lambda: str(client.getsockname()[1]) in ended)


def test_a_client_that_disconnects_inside_a_frame_ends_receive(connect):
    client = connect(and_then=b"\x81\x85half")
    read_head(client)
    port = str(client.getsockname()[1])
    client.close()
    wait_until(lambda: port in ended)


def half(size):
    """A frame of `size` bytes without its last one."""
    return frame(frames.BINARY, b"x" * size)[:-1]


def wait_until(true):
    with gevent.Timeout(30):
        while not true():
            gevent.sleep(0.005)


def test_all_websockets_share_one_limit_of_unfinished_bytes_and_the_one_with_most_byte_seconds_closes(connect):
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


def test_fragments_count_as_unfinished_until_their_message_is_complete(connect):
    client = connect()
    read_head(client)
    unfinished = connect.server.unfinished
    client.sendall(frame(frames.BINARY, b"x" * 50_000, final=False))
    wait_until(lambda: unfinished.unknown_bytes >= 50_000)
    client.sendall(frame(frames.CONTINUATION, b"x"))
    assert len(read_frame(client)[1]) == 50_001
    wait_until(lambda: unfinished.bytes == 0)


def test_the_unfinished_bytes_of_an_identified_client_are_not_unknown_bytes(connect):
    client = connect()
    read_head(client)
    (connection,) = connect.server.connections
    connection.server.unfinished.identify(connection.unfinished, "user:u1", True)
    client.sendall(half(90_000))
    wait_until(lambda: connect.server.unfinished.bytes >= 90_000)
    assert connect.server.unfinished.unknown_bytes == 0
