"""Switchyard as a process: how it starts, what it says, and how it ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests
import websocket

from tests.apps import SECRET, WRITE_KEY, bearer
from tests.servers.switchyard import REPOSITORY, Switchyard
from tests.waiting import wait_until

PRODUCTION = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}"}
BOTH = pytest.mark.parametrize("by", ["flask", "gunicorn"])


def ended(by, *arguments, **settings):
    """The finished process of one that is expected not to start."""
    app = Switchyard(by, **settings)
    try:
        command = [str(part) for part in [*app.command(), *arguments]]
        return subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, text=True, timeout=60)
    finally:
        app.close()


def connect(app):
    return socket.create_connection(("127.0.0.1", app.port), timeout=10)


def open_websocket(app):
    return websocket.create_connection(f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket", timeout=5)


def samples(app, name):
    """{labels: value} of one metric."""
    text = app.metrics().text
    return {labels: float(value) for labels, value in re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE)}


def workers_of(app):
    """The process ids of gunicorn's workers, the oldest first."""
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", app.log)]


# Starting.


def test_flask_run_prints_where_it_listens_and_credentials_that_work(switchyard):
    app = switchyard("flask")
    wait_until(lambda: "write key" in app.log)
    assert f"http://127.0.0.1:{app.port}" in app.log
    token = re.search(r"admin token +(\S+)", app.log)[1]
    write_key = re.search(r"write key +(\S+)", app.log)[1]
    batch = {"app": "web", "events": [{"type": "page", "name": "/"}]}
    assert requests.post(f"{app.url}/api/telemetry/batch", json=batch, headers={"X-Write-Key": write_key}, timeout=5).json()["saved"] == 1
    events = requests.get(f"{app.url}/api/telemetry/events", headers={"Authorization": f"Bearer {token}"}, timeout=5)
    assert len(events.json()["events"]) == 1


def test_gunicorn_means_production_and_wants_a_key():
    refused = ended("gunicorn")
    assert refused.returncode != 0
    assert refused.stderr.splitlines() == [
        "switchyard: APP_ENV=production needs a key to verify tokens with: set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL"
    ]


@BOTH
def test_a_bad_setting_is_one_sentence_and_no_traceback(by):
    refused = ended(by, **PRODUCTION, TELEMETRY_TTL_DAY="30")
    assert refused.returncode != 0
    told = "switchyard: unknown setting TELEMETRY_TTL_DAY (TELEMETRY_TTL_DAYS?); .env.example lists all settings"
    assert refused.stderr.splitlines() == [told]


@BOTH
@pytest.mark.parametrize("settings", [{"MONGO_URI": "mongodb://h/?noSuchOption=1&w=x&retryWrites=perhaps"}, {"DATA_DIR": "/dev/null/x"}])
def test_what_only_the_application_finds_wrong_is_one_sentence_too_and_ends_gunicorn(by, settings):
    refused = ended(by, **PRODUCTION, **settings)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    (name,) = settings
    (sentence,) = [line for line in refused.stderr.splitlines() if name in line]
    assert "switchyard: " in sentence


@pytest.mark.parametrize("how", [{"WEB_CONCURRENCY": "2"}, {}], ids=["by the setting", "by -w"])
def test_two_workers_without_redis_refuse_to_start_and_say_why(how):
    refused = ended("gunicorn", *([] if how else ["-w", "2"]), **PRODUCTION, **how)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "switchyard: 2 workers need REDIS_URL: they share rate limits and POST /api/realtime/emit through it" in refused.stderr


def test_a_port_in_use_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = ended("flask", "--port", taken.getsockname()[1])
        assert refused.returncode != 0
        sentence = f"switchyard: cannot listen on 127.0.0.1:{taken.getsockname()[1]}: Address already in use"
        assert refused.stderr.splitlines()[-1].startswith(sentence)
        assert "Traceback" not in refused.stderr


def test_the_example_settings_copied_unchanged_are_a_start(switchyard):
    app = Switchyard("flask")
    (app.folder / ".env").write_text((REPOSITORY / ".env.example").read_text())
    with app:
        assert requests.get(f"{app.url}/healthz", timeout=5).json()["status"] == "up"


class Copy(Switchyard):
    """A copy of the code in its own folder, started there as its developer does."""

    def __init__(self, *command, **settings):
        super().__init__("flask", **settings)
        self._command = command
        for name in ("app", "migrations_indexes"):
            shutil.copytree(REPOSITORY / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "wsgi.py", self.folder)

    def command(self):
        return [sys.executable, "-m", "flask", *self._command]

    def environment(self):
        environment = super().environment()
        del environment["PYTHONPATH"], environment["FLASK_APP"]
        return environment


def test_flask_run_listens_on_the_port_of_the_settings_and_debug_reloads_and_serves_websockets():
    with Copy("run", "--debug") as app:
        open_websocket(app).close()
        assert app.log.count("admin token") == 1
        health = app.folder / "app" / "http" / "health.py"
        health.write_text(health.read_text().replace("jsonify(ok=True)", "jsonify(ok=True, reloaded=True)"))
        wait_until(lambda: is_reloaded(app), within_s=30)
        open_websocket(app).close()
        assert "Traceback" not in app.log
        assert app.stop() < 5
        assert "Traceback" not in app.log


def is_reloaded(app):
    """Between its two processes the socket is open, and nobody answers."""
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{app.url}/livez", timeout=2).json().get("reloaded")


class WithoutPort(Copy):
    """Started where no PORT is in the environment."""

    def environment(self):
        return {name: value for name, value in super().environment().items() if name != "PORT"}


@pytest.mark.parametrize(("in_file", "arguments"), [("{port}", []), ("1", ["--port", "{port}"])], ids=["the file's", "the command's"])
def test_flask_run_listens_on_the_port_of_the_env_file_unless_the_command_names_another(in_file, arguments):
    app = WithoutPort()
    app._command = ["run", *(argument.format(port=app.port) for argument in arguments)]
    (app.folder / ".env").write_text(f"PORT={in_file.format(port=app.port)}\n")
    with app:
        assert f"listening on {app.url} " in app.log


def test_the_debuggers_console_is_not_offered():
    with Copy("run", "--debug", "--no-reload") as app:
        answer = requests.get(f"{app.url}/console", timeout=5)
        assert "Werkzeug" not in answer.text and "PIN" not in answer.text


# Running.


@pytest.fixture(scope="module")
def gunicorn():
    """One for the tests that leave it as it is."""
    with Switchyard("gunicorn", **PRODUCTION, HTTP_READ_TIMEOUT_MS="500", HTTP_MAX_BODY_BYTES="10000") as app:
        yield app


def test_connection_close_is_echoed(gunicorn):
    assert requests.get(f"{gunicorn.url}/livez", headers={"Connection": "close"}, timeout=5).headers["Connection"] == "close"
    assert "Connection" not in requests.get(f"{gunicorn.url}/livez", timeout=5).headers


def test_a_body_over_the_limit_is_413_with_and_without_its_length(gunicorn):
    url, key = f"{gunicorn.url}/api/telemetry/batch", {"X-Write-Key": WRITE_KEY, "Content-Type": "application/json"}
    whole = requests.post(url, data=b"x" * 20_000, headers=key, timeout=5)
    chunked = requests.post(url, data=iter([b"x" * 2_000] * 10), headers=key, timeout=5)
    for answer in (whole, chunked):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert requests.post(url, data=iter([b"{}"]), headers=key, timeout=5).status_code != 413


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: h\r\n", b"POST /api/flags HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_a_client_that_never_finishes_its_request_cannot_hold_a_connection(gunicorn, beginning):
    with connect(gunicorn) as client:
        client.sendall(beginning)
        if beginning:
            started = time.monotonic()
            assert client.recv(1000) == b""
            assert time.monotonic() - started < 3


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /half",
    b"GET /livez?writeKey=hunter2 HTTP/9.9\r\n\r\n",
    b"POST /api/flags HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
    b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"\x00" * 1000,
    "GET /\u00e4\u00f6 HTTP/1.1\r\nHost: h\r\n\r\n".encode(),
    b"GET /%ff%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
]


def test_garbage_on_the_port_and_clients_that_go_leave_no_traceback(gunicorn):
    for bytes_ in GARBAGE:
        with connect(gunicorn) as client:
            client.sendall(bytes_)
        with connect(gunicorn) as client:
            client.sendall(bytes_)
            client.shutdown(socket.SHUT_WR)
            while client.recv(10_000):
                pass
    assert requests.get(f"{gunicorn.url}/livez", timeout=5).ok
    assert "Traceback" not in gunicorn.log and "hunter2" not in gunicorn.log


def test_every_line_of_the_log_is_json_from_boot_to_end(switchyard):
    app = switchyard(**PRODUCTION)
    requests.get(f"{app.url}/nowhere?token=hunter2", timeout=5)
    requests.post(f"{app.url}/api/telemetry/batch", data="{", headers=bearer("u1"), timeout=5)
    with connect(app) as client:
        client.sendall(GARBAGE[0])
    open_websocket(app).close()
    (worker,) = workers_of(app)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(workers_of(app)) == 2 and app.answers())
    app.stop()
    lines = [json.loads(line) for line in app.log.splitlines()]
    assert all({"event", "level", "timestamp", "logger"} <= line.keys() for line in lines)
    events = [line["event"] for line in lines]
    assert any("Listening at" in event for event in events) and "started" in events and "drained" in events
    refused = [line for line in lines if line["event"] == "request_refused"]
    assert {line["status"] for line in refused} == {404, 400}
    assert all(line["request_id"] for line in refused)
    assert [line["path"] for line in refused] == ["/nowhere", "/api/telemetry/batch"]
    assert [line["reason"].partition(":")[0] for line in refused] == ["There is no such address.", "The body is not JSON"]
    assert refused[-1]["user"] == "u1"
    assert "hunter2" not in app.log and "Traceback" not in app.log


def test_a_worker_that_is_killed_is_replaced(switchyard):
    app = switchyard(**PRODUCTION)
    (worker,) = workers_of(app)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(workers_of(app)) == 2)
    wait_until(app.answers)
    assert app.stop() < 5


def test_two_workers_share_the_work_and_metrics_adds_them_up(switchyard, redis_url):
    app = switchyard(**PRODUCTION, WEB_CONCURRENCY="2", REDIS_URL=redis_url)
    wait_until(lambda: app.log.count('"started"') == 2)
    before = sum(value for labels, value in samples(app, "http_requests_total").items() if "/livez" in labels)
    for _ in range(40):
        assert requests.get(f"{app.url}/livez", timeout=5).ok  # a connection each, so that both workers get some
    after = sum(value for labels, value in samples(app, "http_requests_total").items() if "/livez" in labels)
    assert after - before == 40
    first, second = workers_of(app)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(workers_of(app)) == 3 and app.log.count('"started"') == 3)
    assert sum(value for labels, value in samples(app, "http_requests_total").items() if "/livez" in labels) >= after
    assert app.stop() < 5
    assert app.exit_code == 0
    assert list(app.folder.glob("switchyard-metrics-*")) == []


def test_sighup_takes_new_workers_with_the_same_counters(switchyard):
    app = switchyard(**PRODUCTION)
    with requests.Session() as session:
        before = session.get(f"{app.url}/livez", timeout=5)
        app.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(app)) == 2 and '"drained"' in app.log)
        assert before.ok and session.get(f"{app.url}/livez", timeout=5).ok
    assert sum(value for labels, value in samples(app, "http_requests_total").items() if "/livez" in labels) >= 2
    assert len(list(app.folder.glob("switchyard-metrics-*"))) == 1
    assert app.stop() < 5
    assert app.exit_code == 0
    assert "Traceback" not in app.log


# Ending.


@contextlib.contextmanager
def idle_connections(app, count=3):
    clients = [connect(app) for _ in range(count)]
    for client in clients:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.recv(10_000).startswith(b"HTTP/1.1 200")
    yield clients
    for client in clients:
        client.close()


@BOTH
def test_sigterm_with_idle_connections_and_websockets_ends_in_seconds_with_exit_code_0(switchyard, by):
    app = switchyard(by, **PRODUCTION)
    sockets = [open_websocket(app) for _ in range(3)]
    with idle_connections(app) as clients:
        assert app.stop() < 4
        assert app.exit_code == 0
        for client in clients:
            assert client.recv(1) == b""
    for each in sockets:
        each.shutdown()
    assert "drained" in app.log and "Traceback" not in app.log


@BOTH
def test_sigterm_without_any_connection_drains_before_it_ends(switchyard, by):
    app = switchyard(by, **PRODUCTION)
    assert app.stop() < 3
    assert "drained" in app.log


@BOTH
def test_ctrl_c_ends_without_a_traceback(switchyard, by):
    app = switchyard(by, **PRODUCTION)
    websocket_ = open_websocket(app)
    app.process.send_signal(signal.SIGINT)
    app.process.wait(10)
    websocket_.shutdown()
    assert "Traceback" not in app.log
    assert app.exit_code == 0


def test_while_it_drains_it_is_alive_and_not_ready(switchyard):
    app = switchyard(**PRODUCTION)
    # A websocket that never answers the close keeps the drain busy for its moment of patience.
    deaf = open_websocket(app)
    with idle_connections(app, 1) as (client,):
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: h\r\n")
        time.sleep(0.1)
        app.process.send_signal(signal.SIGTERM)
        wait_until(lambda: '"draining"' in app.log)
        client.sendall(b"\r\n")
        answer = client.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 503") and b"Connection: close" in answer and b"Retry-After:" in answer
    deaf.shutdown()
    app.process.wait(10)
    assert app.exit_code == 0
