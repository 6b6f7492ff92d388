"""The HTTP server, byte for byte. Server and client are greenlets of this process; nothing is patched."""

import json
import time
from contextlib import contextmanager, suppress

import gevent
import gevent.event
import pytest
from gevent import socket

from app.serving.connections_per_address import ConnectionsPerAddress
from app.serving.server import Server
from app.serving.unfinished_bytes import UnfinishedBytes

LIMIT = 1000
LARGE = 20_000_000


def echo(environ, start_response):
    """Answers what it was asked, as JSON; `/chunks` streams, `/large` is long, `/boom` raises, `/late` does so after its head."""
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path == "/boom":
        raise RuntimeError("a surprise")
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * LARGE]
    if path == "/unwritable":
        start_response("200 OK", [("X-Name", "\u20ac")])
        return [b""]
    if path == "/chunks":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"one", b"", b"two"])
    if path == "/late":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return late()
    if path == "/dated":
        start_response("200 OK", [("Date", "Thu, 01 Jan 1970 00:00:00 GMT")])
        return [b""]
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if int(environ["CONTENT_LENGTH"]) > LIMIT:
        start_response("413 Content Too Large", [("Content-Type", "text/plain")])
        return [b"too large"]
    seen = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**seen, "body": body.decode("latin-1")}).encode()]


def late():
    yield b"first"
    raise RuntimeError("too late")


@contextmanager
def serving(**options):
    server = Server(("127.0.0.1", 0), echo, max_body_bytes=LIMIT, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(timeout=0.1)


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def hang_up():
    yield
    while OPEN:
        client = OPEN.pop()
        client.file.close()
        client.socket.close()


OPEN = []


class Client:
    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.server_port))
        self.socket.settimeout(5)
        self.file = self.socket.makefile("rb")
        OPEN.append(self)

    def send(self, *parts):
        for part in parts:
            self.socket.sendall(part.replace("\n", "\r\n").encode("latin-1") if isinstance(part, str) else part)
        return self

    def answer(self, *, has_body=True):
        """(status, headers, body) of the next answer; None at the end of the connection."""
        line = self.file.readline()
        if not line:
            return None
        headers = {}
        while (row := self.file.readline().rstrip()) != b"":
            name, _, value = row.decode().partition(": ")
            headers[name.lower()] = value
        return int(line.split()[1]), headers, self._body(headers) if has_body else b""

    def _body(self, headers):
        if headers.get("transfer-encoding") != "chunked":
            return self.file.read(int(headers.get("content-length", 0)))
        body = b""
        while (size := int(self.file.readline(), 16)) > 0:
            body += self.file.read(size)
            self.file.readline()
        self.file.readline()
        return body

    def is_closed(self):
        return self.file.read(1) == b""


def ask(server, text):
    return Client(server).send(text).answer()


def environ_of(server, text):
    status, _, body = ask(server, text)
    assert status == 200
    return json.loads(body)


def test_a_request_becomes_a_wsgi_environ(server):
    headers = "Host: h\nContent-Type: text/plain\nX-Write-Key:  k \nContent-Length: 2"
    environ = environ_of(server, f"POST /a%20b/%E4?x=1&y=%20 HTTP/1.1\n{headers}\n\nhi")
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["PATH_INFO"] == "/a b/\xe4"
    assert environ["QUERY_STRING"] == "x=1&y=%20"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["HTTP_X_WRITE_KEY"] == "k"
    assert environ["body"] == "hi"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_a_header_sent_twice_is_joined(server):
    assert environ_of(server, "GET / HTTP/1.1\nHost: h\nAccept: a\nAccept: b\n\n")["HTTP_ACCEPT"] == "a,b"


def test_a_header_with_an_underscore_cannot_pass_for_another_one(server):
    assert "HTTP_X_WRITE_KEY" not in environ_of(server, "GET / HTTP/1.1\nHost: h\nX_Write_Key: forged\n\n")


def test_a_chunked_body_is_whole_when_the_application_reads_it(server):
    environ = environ_of(server, "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n3\nabc\n2\nde\n0\n\n")
    assert (environ["body"], environ["CONTENT_LENGTH"]) == ("abcde", "5")


def test_the_absolute_form_of_a_target_is_understood(server):
    environ = environ_of(server, "GET http://example.test/path?q=1 HTTP/1.1\nHost: example.test\n\n")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/path", "q=1")


def test_a_connection_serves_one_request_after_another(server):
    client = Client(server)
    for n in range(3):
        assert json.loads(client.send(f"GET /{n} HTTP/1.1\nHost: h\n\n").answer()[2])["PATH_INFO"] == f"/{n}"


def test_requests_sent_at_once_are_answered_in_order(server):
    client = Client(server).send("".join(f"POST /{n} HTTP/1.1\nHost: h\nContent-Length: 1\n\n{n}" for n in range(5)))
    assert [json.loads(client.answer()[2])["body"] for _ in range(5)] == list("01234")


def test_a_request_that_comes_byte_by_byte_is_the_same_request(server):
    client = Client(server)
    for byte in b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc":
        client.send(bytes([byte]))
        gevent.sleep(0)
    assert json.loads(client.answer()[2])["body"] == "abc"


def test_an_answer_leaves_in_one_piece_and_the_next_does_not_wait_for_it(server):
    client = Client(server)
    started = time.monotonic()
    for _ in range(20):
        client.send("GET / HTTP/1.1\nHost: h\n\n").answer()
    assert time.monotonic() - started < 20 * 0.04  # a delayed acknowledgement alone would cost that


@pytest.mark.parametrize("first, kept", [("HTTP/1.1\nHost: h", True), ("HTTP/1.1\nHost: h\nConnection: close", False), ("HTTP/1.0", False)])
def test_a_connection_closes_when_it_was_asked_to_and_says_so(server, first, kept):
    client = Client(server).send(f"GET / {first}\n\n")
    _, headers, _ = client.answer()
    assert headers.get("connection") == (None if kept else "close")
    if not kept:
        assert client.is_closed()


def test_http_1_0_may_keep_its_connection(server):
    client = Client(server).send("GET / HTTP/1.0\nConnection: keep-alive\n\n")
    assert client.answer()[1]["connection"] == "keep-alive"
    assert client.send("GET / HTTP/1.0\n\n").answer()[0] == 200


def test_a_result_of_unknown_length_is_chunked_for_http_1_1_and_ends_the_connection_for_1_0(server):
    client = Client(server).send("GET /chunks HTTP/1.1\nHost: h\n\n")
    assert client.answer()[2] == b"onetwo"
    old = Client(server).send("GET /chunks HTTP/1.0\n\n")
    assert old.file.read().endswith(b"\r\n\r\nonetwo")


def test_head_has_the_headers_and_no_body(server):
    client = Client(server).send("HEAD / HTTP/1.1\nHost: h\n\nGET / HTTP/1.1\nHost: h\n\n")
    status, headers, _ = client.answer(has_body=False)
    assert status == 200
    assert int(headers["content-length"]) > 0
    assert client.answer()[0] == 200


def test_an_answer_has_one_date_whoever_gives_it(server):
    raw = Client(server).send("GET /dated HTTP/1.0\n\n").file.read()
    assert raw.count(b"Date: ") == 1
    assert b"1970" in raw
    assert b"Date: " in Client(server).send("GET / HTTP/1.0\n\n").file.read()


def test_no_content_has_no_length(server):
    client = Client(server).send("GET /none HTTP/1.1\nHost: h\n\nGET / HTTP/1.1\nHost: h\n\n")
    status, headers, _ = client.answer()
    assert status == 204
    assert "content-length" not in headers
    assert client.answer()[0] == 200


def test_expect_100_continue_is_answered_before_the_body(server):
    client = Client(server).send("POST / HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 2\n\n")
    assert client.file.readline().startswith(b"HTTP/1.1 100")
    client.file.readline()
    assert json.loads(client.send("hi").answer()[2])["body"] == "hi"


# --- what does not fit


@pytest.mark.parametrize("framing", ["Content-Length: 100000\n\n", "Transfer-Encoding: chunked\n\n186a0\n"])
def test_a_body_over_the_limit_is_refused_by_the_application_and_the_answer_arrives(server, framing):
    client = Client(server).send(f"POST / HTTP/1.1\nHost: h\n{framing}", b"x" * 100_000)
    status, headers, body = client.answer()
    assert (status, headers["connection"], body) == (413, "close", b"too large")
    assert client.is_closed()


def test_a_body_that_only_claims_to_be_too_long_is_refused_before_it_is_sent(server):
    status, headers, _ = ask(server, "POST / HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 99999999999\n\n")
    assert (status, headers["connection"]) == (413, "close")


GARBAGE = [
    "GARBAGE\n\n",
    "GET / HTTP/9.9\nHost: h\n\n",
    "GET / HTTP/1.1\nno colon\n\n",
    "GET / HTTP/1.1\nHost: h\nContent-Length: x\n\n",
    "GET / HTTP/1.1\nHost: h\nContent-Length: -1\n\n",
    "POST / HTTP/1.1\nHost: h\nContent-Length: 2\nContent-Length: 3\n\nabc",
    "POST / HTTP/1.1\nHost: h\nContent-Length: 2\nTransfer-Encoding: chunked\n\n0\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\nzz\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "GET http:///x y HTTP/1.1\n\n",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_request_gets_the_error_shape_and_the_connection_closes(server, text):
    client = Client(server).send(text)
    status, headers, body = client.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body)["error"]["code"] == "bad_request"
    assert headers["x-request-id"]
    assert client.is_closed()


@pytest.mark.parametrize("headers", ["X-Long: " + "x" * 40_000 + "\n", "".join(f"X-{n}: 1\n" for n in range(200))])
def test_headers_without_end_are_refused(server, headers):
    status, _, body = ask(server, f"GET / HTTP/1.1\nHost: h\n{headers}\n")
    assert status == 431
    assert json.loads(body)["error"]["code"] == "payload_too_large"


NOT_OURS = [  # what a proxy before us may read otherwise
    "GET /\n",
    "GET /\n\n",
    "GET / HTTP/0.9\n\n",
    "GET / HTTP/2.0\nHost: h\n\n",
    "GET / HTTP/1.1\n\n",
    "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
    "GET / HTTP/1.1\nHost: a\nhost: a\n\n",
    "GET / HTTP/1.0\nHost: a\nHost: b\n\n",
    "POST / HTTP/1.0\nHost: h\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip, chunked\n\n2\nhi\n0\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: identity\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked, chunked\n\n0\n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: \n\n",
    "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: \x0bchunked\n\n0\n\n",
]


@pytest.mark.parametrize("text", NOT_OURS)
def test_what_two_servers_could_read_in_two_ways_is_400_and_the_connection_closes(server, text):
    client = Client(server).send(text)
    status, headers, body = client.answer()
    assert (status, headers["connection"], json.loads(body)["error"]["code"]) == (400, "close", "bad_request")
    assert client.is_closed()


@pytest.mark.parametrize("head", ["HTTP/1.1\nHost: h", "HTTP/1.1\nHost: ", "HTTP/1.0", "HTTP/1.0\nHost: h"])
def test_one_host_is_right_and_an_old_client_may_leave_it_out(server, head):
    assert ask(server, f"GET / {head}\n\n")[0] == 200


@pytest.mark.parametrize("name", ["chunked", "Chunked", " chunked "])
def test_chunked_may_be_written_in_any_case(server, name):
    assert environ_of(server, f"POST / HTTP/1.1\nHost: h\nTransfer-Encoding: {name}\n\n2\nhi\n0\n\n")["body"] == "hi"


def test_the_host_of_an_absolute_target_counts_instead_of_the_header(server):
    environ = environ_of(server, "GET http://example.test:81/path HTTP/1.1\nHost: other.test\n\n")
    assert environ["HTTP_HOST"] == "example.test:81"


def test_a_good_request_before_garbage_is_still_answered(server):
    client = Client(server).send("GET / HTTP/1.1\nHost: h\n\n").send("GARBAGE\n\n")
    assert [client.answer()[0], client.answer()[0]] == [200, 400]


def test_an_application_that_raises_is_answered_for_in_the_error_shape(server):
    client = Client(server).send("GET /boom HTTP/1.1\nHost: h\n\n")
    status, _, body = client.answer()
    assert status == 500
    assert json.loads(body)["error"]["code"] == "internal"


def test_an_application_that_raises_in_the_middle_ends_the_connection_without_an_end_mark(server):
    raw = Client(server).send("GET /late HTTP/1.1\nHost: h\n\n").file.read()
    assert b"first" in raw
    assert not raw.endswith(b"0\r\n\r\n")


# --- deadlines


@pytest.mark.parametrize("beginning", ["GET / HT", "POST / HTTP/1.1\nHost: h\nContent-Length: 10\n\nhalf"])
def test_a_request_that_never_ends_is_cut(beginning):
    with serving(read_timeout_s=0.2) as server:
        assert Client(server).send(beginning).is_closed()


def test_dripping_bytes_does_not_buy_time():
    with serving(read_timeout_s=0.5) as server:
        client = Client(server).send("GET / HTTP/1.1\n")
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 3:
                client.send("X: y\n")
                gevent.sleep(0.05)


def test_a_client_that_never_reads_its_answer_cannot_hold_a_connection():
    with serving(write_timeout_s=0.2) as server:
        Client(server).send("GET /large HTTP/1.1\nHost: h\n\n")
        gevent.sleep(0.05)
        assert len(server.connections) == 1
        with gevent.Timeout(5):
            while server.connections:
                gevent.sleep(0.05)


def test_an_idle_connection_is_cut():
    with serving(keepalive_s=0.2) as server:
        client = Client(server).send("GET / HTTP/1.1\nHost: h\n\n")
        assert client.answer()[0] == 200
        assert client.is_closed()


def test_where_all_connections_are_taken_those_that_ask_for_nothing_make_room(monkeypatch):
    monkeypatch.setattr("app.serving.server.DEADLINE_CHECK_S", 60)  # the test looks by itself
    with serving(spawn=5) as server:
        idle = [Client(server).send("GET / HTTP/1.1\nHost: h\n\n") for _ in range(5)]
        assert [client.answer()[0] for client in idle] == [200] * 5
        next_one = Client(server).send("GET /livez HTTP/1.1\nHost: h\n\n")
        server.close_overdue(time.monotonic() + 59)
        assert len(server.connections) == 5, "they had no time to ask for something yet"
        server.close_overdue(time.monotonic() + 61)
        assert next_one.answer()[0] == 200
        assert all(client.is_closed() for client in idle)


def test_room_is_made_while_a_new_connection_waits(monkeypatch):
    monkeypatch.setattr("app.serving.server.DEADLINE_CHECK_S", 0.1)
    with serving(spawn=5) as server:
        idle = [Client(server).send("GET / HTTP/1.1\nHost: h\n\n") for _ in range(5)]
        assert [client.answer()[0] for client in idle] == [200] * 5
        assert ask(server, "GET /livez HTTP/1.1\nHost: h\n\n")[0] == 200


def test_where_there_is_room_they_stay(monkeypatch):
    monkeypatch.setattr("app.serving.server.DEADLINE_CHECK_S", 0.05)
    with serving(spawn=6) as server:
        idle = [Client(server).send("GET / HTTP/1.1\nHost: h\n\n") for _ in range(5)]
        assert [client.answer()[0] for client in idle] == [200] * 5
        gevent.sleep(0.3)
        assert [client.send("GET / HTTP/1.1\nHost: h\n\n").answer()[0] for client in idle] == [200] * 5


def test_closing_lets_idle_connections_go(server):
    client = Client(server).send("GET / HTTP/1.1\nHost: h\n\n")
    client.answer()
    gevent.sleep(0)
    server.close()
    assert client.is_closed()
    server.wait_until_closed()


def test_a_request_that_arrives_with_the_close_is_answered_and_told_that_the_connection_ends(server):
    client = Client(server).send("GET / HTTP/1.1\nHost: h\n\n")
    client.answer()
    gevent.sleep(0)
    client.send("GET /last HTTP/1.1\nHost: h\n\n")
    server.close()
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.is_closed()


def test_closing_does_not_cut_an_answer_that_a_slow_client_is_still_reading(server):
    client = Client(server)
    client.send("GET /large HTTP/1.1\nHost: h\n\n")
    gevent.sleep(0.05)
    server.close()
    gevent.sleep(0.05)
    assert len(client.answer()[2]) == LARGE


def test_a_header_that_cannot_be_written_is_a_500_and_not_silence(server):
    assert ask(server, "GET /unwritable HTTP/1.1\nHost: h\n\n")[0] == 500


# --- what a proxy might be made to believe


INNER = "GET /smuggled HTTP/1.1\nHost: h\n\n"


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_body_of_a_request_that_asks_to_upgrade_is_its_body_and_not_another_request(server, protocol, pieces, is_chunked):
    inner = INNER.replace("\n", "\r\n")
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(inner)}"
    body = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n" if is_chunked else inner
    head = f"POST /outer HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{framing}\r\n\r\n"
    client = Client(server)
    for part in [head + body] if pieces == 1 else [head, body]:
        client.send(part.encode())
        gevent.sleep(0.01)
    environ = json.loads(client.answer()[2])
    assert (environ["PATH_INFO"], environ["body"]) == ("/outer", inner)
    assert json.loads(client.send("GET /next HTTP/1.1\nHost: h\n\n").answer()[2])["PATH_INFO"] == "/next"


def test_a_wish_for_a_protocol_that_is_not_spoken_is_passed_over_and_the_next_request_is_not_lost(server):
    upgrade = "GET /first HTTP/1.1\nHost: h\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x\n\n"
    client = Client(server).send(upgrade + "GET /second HTTP/1.1\nHost: h\n\n")
    assert [json.loads(client.answer()[2])["PATH_INFO"] for _ in range(2)] == ["/first", "/second"]


def test_a_websocket_is_opened_only_where_engine_io_listens(server):
    upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\n\n"
    assert ask(server, f"GET /elsewhere HTTP/1.1\nHost: h\n{upgrade}")[0] == 200


def test_an_opening_that_is_no_websocket_gets_the_error_shape(server):
    status, headers, body = ask(server, "GET /socket.io/ HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n")
    assert (status, headers["sec-websocket-version"]) == (400, "13")
    assert json.loads(body)["error"]["code"] == "bad_request"


def test_a_field_after_the_body_never_becomes_a_header(server):
    chunked = "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n2\nhi\n0\nAuthorization: forged\nX-Write-Key: forged\n\n"
    environ = environ_of(server, chunked)
    assert environ["body"] == "hi"
    assert "forged" not in environ.values()


def test_empty_lines_do_not_keep_an_idle_connection():
    with serving(keepalive_s=0.3) as server:
        client = Client(server)
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 5:
                client.send("\n")
                gevent.sleep(0.05)


def test_a_connection_that_always_has_more_to_ask_leaves_turns_to_the_others(server):
    flood = Client(server)
    reader = gevent.spawn(lambda: [flood.file.read(65_536) for _ in range(200)])
    writer = gevent.spawn(flood.send, *["GET / HTTP/1.1\nHost: h\n\n" * 200] * 20)
    gevent.sleep(0.01)
    neighbour = Client(server)
    waits = []
    for _ in range(10):
        started = time.monotonic()
        neighbour.send("GET / HTTP/1.1\nHost: h\n\n").answer()
        waits.append(time.monotonic() - started)
    was_flooding = not writer.dead or not reader.dead
    gevent.killall([reader, writer])
    assert was_flooding
    assert sorted(waits)[5] < 0.5  # without turns the first of them waits for the whole flood


# --- what is unfinished, and whose it is


BODY = 60_000


def post(path="/", headers="", length=BODY):
    return f"POST {path} HTTP/1.1\nHost: h\n{headers}Content-Length: {length}\n\n"


def admit(environ):
    """A client is known where it names itself; one of Engine.IO never is."""
    name = environ.get("HTTP_X_NAME")
    return f"user:{name}" if name else environ["REMOTE_ADDR"], name is not None


@contextmanager
def holding(**options):
    with serving(check_sender=admit, unfinished=UnfinishedBytes(10 * BODY, 4 * BODY), **options) as server:
        server.max_body_bytes = 2 * BODY
        yield server


def has_come(server, size):
    with gevent.Timeout(5):
        while server.unfinished.bytes < size:
            gevent.sleep(0.005)


@pytest.mark.parametrize("framing", [post(), "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n4000\n"])
def test_a_body_without_a_credential_is_answered_before_it_is_sent(framing):
    asked = []

    def refuse(environ, start_response):
        asked.append(environ)
        start_response("401 Unauthorized", [])
        return [b"who are you"]

    with holding() as server:
        server.application = refuse
        status, headers, body = ask(server, framing)
        assert (status, headers["connection"], body) == (401, "close", b"who are you")
        assert server.unfinished.bytes == 0


def test_a_body_without_a_credential_that_the_application_reads_all_the_same_is_an_error_and_not_an_empty_body():
    with holding() as server:
        assert ask(server, post())[0] == 500


@pytest.mark.parametrize("length", [5, 900])
def test_a_small_body_is_collected_without_asking(length):
    with holding() as server:
        client = Client(server).send(post(length=length))
        gevent.sleep(0.02)
        server.check_sender = None
        assert json.loads(client.send("x" * length).answer()[2])["body"] == "x" * length


def test_a_body_that_came_with_its_head_asks_nobody():
    with holding() as server:
        server.check_sender = None
        request = post(length=20_000).replace("\n", "\r\n").encode() + b"x" * 20_000
        assert Client(server).send(request).answer()[0] == 413  # the echo's own limit: it read it all


def test_a_known_client_sends_its_body_in_pieces_and_leaves_nothing_counted():
    with holding() as server:
        client = Client(server).send(post(headers="X-Name: u1\n"), "x" * 30_000)
        has_come(server, 30_000)
        assert server.unfinished.unknown_bytes == 0
        assert client.send("x" * 30_000).answer()[0] == 413  # the echo's own limit: it read it all
        assert client.send("GET / HTTP/1.1\nHost: h\n\n").answer()[0] == 200
        assert server.unfinished.bytes == 0


def test_held_back_bodies_make_room_and_are_told_503_while_a_client_that_sends_is_served():
    with holding() as server:
        attackers = [Client(server).send(post(headers="X-Name: attacker\n"), "x" * 50_000) for _ in range(9)]
        has_come(server, 9 * 50_000)
        honest = Client(server).send(post(headers="X-Name: honest\n"), "x" * 30_000)
        has_come(server, 480_000)
        attackers += [Client(server).send(post(headers="X-Name: attacker\n"), "x" * 50_000) for _ in range(9)]
        gevent.sleep(0.1)
        assert server.unfinished.bytes <= 10 * BODY
        assert honest.send("x" * 30_000).answer()[0] == 413
        status, headers, body = attackers[0].answer()
        assert (status, headers["connection"], json.loads(body)["error"]["code"]) == (503, "close", "unavailable")
        assert int(headers["retry-after"]) >= 1
        assert attackers[0].is_closed()


def test_strangers_have_a_smaller_bound_together():
    with holding() as server:
        clients = [Client(server).send(post("/socket.io/"), "x" * 50_000) for _ in range(12)]
        has_come(server, 150_000)
        gevent.sleep(0.1)
        assert server.unfinished.unknown_bytes <= 4 * BODY
        assert clients[0].answer()[0] == 503


def test_a_connection_that_ends_unfinished_holds_nothing_any_more():
    with holding() as server:
        client = Client(server).send(post(headers="X-Name: u1\n"), "x" * 50_000)
        has_come(server, 50_000)
        client.file.close()
        client.socket.close()
        with gevent.Timeout(5):
            while server.unfinished.bytes:
                gevent.sleep(0.005)


def test_a_head_without_end_counts_too():
    with holding() as server:
        Client(server).send("GET / HTTP/1.1\nHost: h\nX-A: " + "x" * 20_000)
        has_come(server, 20_000)
        assert server.unfinished.unknown_bytes >= 20_000


CHUNKED = "POST / HTTP/1.1\nHost: h\nX-Name: u1\nTransfer-Encoding: chunked\n\n"


@pytest.mark.parametrize(
    ("beginning", "status"), [("GET /", 431), ("GET / HTTP/1.1\nX-A: ", 431), ("GET / HTTP/1.1\nX-", 431), (f"{CHUNKED}0\nX-A: ", 400)]
)
def test_a_line_a_field_or_a_trailer_without_end_is_refused_long_before_the_deadline(server, beginning, status):
    client = Client(server).send(beginning)
    with suppress(OSError):
        for _ in range(100):
            client.send("x" * 20_000)
            gevent.sleep(0.001)
    assert client.answer()[0] == status


def test_a_body_in_chunks_of_one_byte_is_a_body(server):
    assert environ_of(server, CHUNKED + "1\nx\n" * 900 + "0\n\n")["body"] == "x" * 900


# --- connections of one address


def test_an_address_has_a_share_of_the_connections_and_is_told_when_it_is_used_up():
    refused = []
    with serving(per_address=ConnectionsPerAddress(2), on_rejected=refused.append) as server:
        first, second = Client(server), Client(server)
        assert [each.send("GET / HTTP/1.1\nHost: h\n\n").answer()[0] for each in (first, second)] == [200, 200]
        third = Client(server).send("GET / HTTP/1.1\nHost: h\n\n")
        status, headers, body = third.answer()
        assert (status, json.loads(body)["error"]["code"], headers["retry-after"]) == (429, "rate_limited", "1")
        assert third.is_closed()
        assert refused == ["connections"]
        first.file.close()
        first.socket.close()
        gevent.sleep(0.05)
        assert ask(server, "GET / HTTP/1.1\nHost: h\n\n")[0] == 200


def test_behind_a_trusted_proxy_the_share_is_the_clients_and_not_the_proxys():
    waiting, may_answer = [], gevent.event.Event()

    def slow(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            waiting.append(environ)
            may_answer.wait(5)
        start_response("200 OK", [])
        return [b"ok"]

    with serving(per_address=ConnectionsPerAddress(1), trusted_proxies=1) as server:
        server.application = slow
        held = Client(server).send("GET /slow HTTP/1.1\nHost: h\nX-Forwarded-For: 198.51.100.1\n\n")
        with gevent.Timeout(5):
            while not waiting:
                gevent.sleep(0.005)
        quick = "GET / HTTP/1.1\nHost: h\n"
        assert ask(server, f"{quick}X-Forwarded-For: 198.51.100.1\n\n")[0] == 429
        assert ask(server, f"{quick}X-Forwarded-For: 9.9.9.9, 198.51.100.1\n\n")[0] == 429  # only the last entry is the proxy's
        assert ask(server, f"{quick}X-Forwarded-For: 198.51.100.2\n\n")[0] == 200
        assert ask(server, f"{quick}\n")[0] == 200
        may_answer.set()
        assert held.answer()[0] == 200
        assert ask(server, f"{quick}X-Forwarded-For: 198.51.100.1\n\n")[0] == 200
