"""One client beside the others, over real sockets: bodies that are held back, and connections without number."""

import select
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer, error_of
from tests.servers.real import real
from tests.servers.switchyard import Switchyard

HELD = 400_000
BATCH = {"app": "web", "events": [{"type": "page", "name": "/"}]}


@pytest.fixture(scope="module")
def app():
    bounds = {"HTTP_MAX_UNFINISHED_BYTES": 8_000_000, "HTTP_MAX_UNKNOWN_BYTES": 2_100_000, "HTTP_CONNECTIONS_PER_ADDRESS": 150}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}", **bounds) as running:
        yield running
        assert "Traceback" not in running.log


def memory(app):
    (worker,) = app.workers
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def begin(app, stack, path, headers="", length=510_000):
    client = stack.enter_context(socket.create_connection(("127.0.0.1", app.port), timeout=5))
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n".encode())
    return client


def send(client, size):
    try:
        client.sendall(b"x" * size)
    except OSError:
        return  # it was refused already


BATCHES = "/api/telemetry/batch"
WRONG = ["", "X-Write-Key: wk_wrong\r\n", "Authorization: Bearer nonsense\r\n", "Authorization: Basic eDp5\r\n"]


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize("path", ["/api/telemetry/batch", "/api/flags", "/api/realtime/publish", "/api/telemetry/batch?writeKey=wk_wrong"])
def test_a_body_without_a_right_credential_is_401_before_it_is_sent(app, path, headers):
    with ExitStack() as stack:
        assert b" 401 " in begin(app, stack, path, headers).recv(100)


def test_a_client_that_asks_before_it_sends_is_told_to_go_on_only_with_a_credential(app):
    expecting = "Expect: 100-continue\r\n"
    with ExitStack() as stack:
        assert begin(app, stack, BATCHES, expecting).recv(100).startswith(b"HTTP/1.1 401 ")
        known = begin(app, stack, BATCHES, f"{expecting}X-Write-Key: {WRITE_KEY}\r\n", length=20_000)
        assert known.recv(100).startswith(b"HTTP/1.1 100 ")


def test_what_is_refused_by_its_head_in_other_words_says_those(app):
    with ExitStack() as stack:
        assert b" 404 " in begin(app, stack, "/nowhere").recv(100)
        assert b" 405 " in begin(app, stack, "/livez").recv(100)
        assert b" 413 " in begin(app, stack, BATCHES, f"X-Write-Key: {WRITE_KEY}\r\n", length=99_999_999).recv(100)


HELD_BACK = [(BATCHES, f"X-Write-Key: {WRITE_KEY}\r\n"), (f"/api/perf/batch?writeKey={WRITE_KEY}", ""), ("/socket.io/?EIO=4&sid=x", "")]


@pytest.mark.parametrize(("path", "headers"), HELD_BACK)
def test_bodies_that_are_held_back_cost_the_bound_and_an_honest_client_is_served(app, path, headers):
    requests.post(f"{app.url}/api/telemetry/batch", json=BATCH, headers={"X-Write-Key": WRITE_KEY}, timeout=5)
    before = memory(app)
    with ExitStack() as stack:
        for _ in range(100):
            send(begin(app, stack, path, headers), HELD)
        started = time.monotonic()
        large = {**BATCH, "events": BATCH["events"] * 900}
        for credential in ({"X-Write-Key": WRITE_KEY}, bearer("u1")):
            answer = requests.post(f"{app.url}/api/telemetry/batch", json=large, headers=credential, timeout=5)
            assert answer.json()["saved"] == 900
        assert time.monotonic() - started < 3
        assert memory(app) - before < 20_000_000  # and not the 40 MB that were sent


def test_a_client_whose_bytes_are_dropped_gets_503_with_the_time_to_retry(app):
    with ExitStack() as stack:
        clients = [begin(app, stack, "/api/telemetry/batch", f"X-Write-Key: {WRITE_KEY}\r\n") for _ in range(40)]
        for client in clients:
            send(client, HELD)
        rejected, deadline = [], time.monotonic() + 10
        while not rejected and time.monotonic() < deadline:
            for client in select.select(clients, [], [], 1)[0]:
                with suppress(OSError):  # a client may be reset before it has read the answer
                    rejected += [answer for answer in [client.recv(1000)] if b" 503 " in answer]
        assert rejected and all(b"\r\nRetry-After: 1\r\n" in answer and b'"retryable":true' in answer for answer in rejected)


def answer_with(app, status):
    """The first answer with that status, since connections are accepted and given back in the server's own time."""
    deadline = time.monotonic() + 10
    while (answer := requests.get(f"{app.url}/livez", timeout=5)).status_code != status:
        assert time.monotonic() < deadline, f"it stays {answer.status_code}"
        time.sleep(0.05)
    return answer


def test_an_address_with_all_its_connections_is_told_429_and_the_metrics_count_it(app):
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(socket.create_connection(("127.0.0.1", app.port), timeout=5))
        assert error_of(answer_with(app, 429))["code"] == "rate_limited"
    answer_with(app, 200)
    metrics = app.metrics().text
    assert 'http_rejected_total{reason="connections"}' in metrics
    assert 'http_rejected_total{reason="unfinished"}' in metrics


def first_answer(clients):
    """Of whichever is answered first; one may have been reset before it could read."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for client in select.select(clients, [], [], 1)[0]:
            with suppress(OSError):
                if answer := client.recv(1000):
                    return answer
            clients.remove(client)
    raise AssertionError("nobody was answered")


@pytest.mark.parametrize(("origins", "origin"), [("*", "https://any.test"), ("https://app.test", "https://app.test")])
def test_a_page_can_read_why_its_slow_request_was_dropped(origins, origin):
    bounds = {"HTTP_MAX_UNFINISHED_BYTES": 2_100_000, "HTTP_MAX_UNKNOWN_BYTES": 2_100_000, "CORS_ORIGINS": origins}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}", **bounds) as app, ExitStack() as stack:
        clients = [begin(app, stack, BATCHES, f"X-Write-Key: {WRITE_KEY}\r\nOrigin: {origin}\r\n") for _ in range(10)]
        for client in clients:
            send(client, HELD)
        answer = first_answer(clients)
    assert b" 503 " in answer and f"\r\nAccess-Control-Allow-Origin: {'*' if origins == '*' else origin}\r\n".encode() in answer


def test_servers_of_several_addresses_share_the_bounds_of_their_process():
    class OnTwo(Switchyard):
        def command(self):
            return [*super().command(), "-b", f"127.0.0.1:{self.port}", "-b", f"unix:{self.folder}/s"]

    bounds = {"HTTP_CONNECTIONS_PER_ADDRESS": 3, "TRUSTED_PROXIES": 1}
    with real(OnTwo, "gunicorn", JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}", **bounds) as app, ExitStack() as stack:
        asking = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        asking += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"

        def opened(family, address):
            client = stack.enter_context(socket.socket(family))
            client.settimeout(5)
            client.connect(address)
            client.sendall(asking)
            return client.recv(20)

        over_tcp = [opened(socket.AF_INET, ("127.0.0.1", app.port)) for _ in range(2)]
        over_unix = [opened(socket.AF_UNIX, f"{app.folder}/s") for _ in range(2)]
        assert [b" 101 " in answer for answer in over_tcp + over_unix] == [True, True, True, False]
        assert b" 429 " in over_unix[1]
