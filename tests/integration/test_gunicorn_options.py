"""What an operator gives to gunicorn, or to `flask run`, on its command line: done, or refused with a sentence."""

import datetime
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from contextlib import suppress

import pytest
import requests
import websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.apps import SECRET, WRITE_KEY, bearer, token
from tests.servers.switchyard import Switchyard
from tests.waiting import wait_until

PRODUCTION = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}"}


class Started(Switchyard):
    """With arguments behind the usual command."""

    def __init__(self, by, *arguments, **settings):
        super().__init__(by, **settings)
        self.arguments = arguments

    def command(self):
        return [*super().command(), *self.arguments]


class OverTls(Started):
    """Asked as a client that trusts its certificate and no other."""

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    trusts = None

    def answers(self):
        try:
            return requests.get(f"{self.url}/livez", timeout=2, verify=self.trusts or self.folder / "c.pem").status_code == 200
        except requests.RequestException:
            return False


def certify(folder, serial=1):
    """A certificate for localhost and its key, as c.pem and k.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(serial)
    built = built.not_valid_before(today - datetime.timedelta(days=1)).not_valid_after(today + datetime.timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "c.pem").write_bytes(built.sign(key, hashes.SHA256()).public_bytes(pem))
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "k.pem").write_bytes(text)


# TLS.


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def tls(request):
    """Nobody's certificate stands in a settings file, so both commands take it as an argument."""
    arguments = ["--certfile", "c.pem", "--keyfile", "k.pem"] if request.param == "gunicorn" else ["--cert", "c.pem", "--key", "k.pem"]
    app = OverTls(request.param, *arguments, **PRODUCTION, APP_ENV="production", HTTP_READ_TIMEOUT_MS="1000")
    certify(app.folder)
    with app:
        yield app
        assert "Traceback" not in app.log


def trusting(app):
    return ssl.create_default_context(cafile=app.folder / "c.pem")


def session_of(app):
    session = requests.Session()
    session.trust_env = False  # where the machine names other certificates
    session.verify = str(app.folder / "c.pem")
    return session


def dial(app):
    return socket.create_connection(("127.0.0.1", app.port), timeout=5)


def test_what_the_log_calls_https_is(tls):
    assert f"https://0.0.0.0:{tls.port}" in tls.log or f"https://127.0.0.1:{tls.port}" in tls.log
    batch = {"app": "web", "events": [{"type": "page", "name": "x" * 200}] * 500}
    with session_of(tls) as session:
        for _ in range(3):
            answer = session.post(f"{tls.url}/api/telemetry/batch", json=batch, headers={"X-Write-Key": WRITE_KEY}, timeout=5)
            assert answer.json()["saved"] == 500


def test_plain_http_on_that_port_is_no_answer_and_no_traceback(tls):
    with dial(tls) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        with suppress(ConnectionResetError):
            assert not client.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_client_that_never_shakes_hands_is_cut(tls):
    with dial(tls) as client:
        started = time.monotonic()
        assert client.recv(10) == b""
        assert time.monotonic() - started < 4


def test_the_end_of_a_connection_is_said_so_that_nobody_takes_it_for_a_cut(tls):
    with trusting(tls).wrap_socket(dial(tls), server_hostname="localhost", suppress_ragged_eofs=False) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        text = b""
        while data := client.recv(1000):
            text += data
        assert text.endswith(b'{"ok":true}')


def test_websockets_go_over_tls(tls):
    url = f"wss://localhost:{tls.port}/socket.io/?EIO=4&transport=websocket"
    client = websocket.create_connection(url, timeout=5, sslopt={"context": trusting(tls)})
    assert client.recv().startswith("0{")
    client.send(f'40/realtime,{{"token":"{token("u1", "admin")}"}}')
    assert client.recv().startswith("40/realtime,{")
    client.close()


STOCK_CLIENT = """
const { io } = require("socket.io-client");
const [url, token, transports, certificate] = process.argv.slice(1);
const options = { transports: JSON.parse(transports), ca: require("fs").readFileSync(certificate), auth: { token }, forceNew: true };
const say = (socket, frame) => socket.timeout(5000).emitWithAck("message", frame);
setTimeout(() => { console.error("it took too long"); process.exit(2); }, 20000).unref();
(async () => {
  for (let n = 0; n < 10; n += 1) {
    const socket = io(url + "/realtime", options);
    await new Promise((resolve) => socket.once("connect", resolve));
    const topic = `tls:${transports.length}:${n}`;
    await say(socket, { type: "subscribe", topic, id: "s", ack: false });
    const delivered = new Promise((resolve) => socket.on("message", resolve));
    await say(socket, { type: "publish", topic, id: "p", payload: "x".repeat(50000) });
    console.log((await delivered).payload.length);
    socket.close();
  }
  process.exit(0);
})();
"""


TRANSPORTS = {"polling": '["polling"]', "websocket": '["websocket"]', "upgrade": '["polling", "websocket"]'}


@pytest.mark.parametrize("transports", TRANSPORTS.values(), ids=TRANSPORTS)
def test_a_stock_client_publishes_and_is_delivered_to_over_tls(tls, node, transports):
    printed = node.run(STOCK_CLIENT, tls.url, token("u1", "admin"), transports, tls.folder / "c.pem")
    assert printed.split() == ["50000"] * 10


def test_a_worker_drains_with_connections_over_tls(tls):
    app = OverTls(tls.by, *tls.arguments, **tls.settings)
    certify(app.folder)
    with app, trusting(app).wrap_socket(dial(app), server_hostname="localhost") as idle:
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        assert app.stop() < 4
        assert idle.recv(10) == b""
        assert "drained" in app.log and "Traceback" not in app.log


def refused(*arguments, write=None):
    """The finished process of a start that is expected to be refused."""
    app = Started("gunicorn", *arguments, **PRODUCTION)
    try:
        for name, text in (write or {}).items():
            (app.folder / name).write_text(text)
        command = [str(part) for part in app.command()]
        return subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, text=True, timeout=30)
    finally:
        app.close()


def test_a_certificate_that_cannot_be_used_ends_the_start_with_a_sentence():
    ended = refused("--certfile", "c.pem", "--keyfile", "k.pem", write={"c.pem": "no certificate", "k.pem": "no key"})
    assert ended.returncode != 0
    assert "switchyard: --certfile c.pem and its key cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_certificate_that_is_missing_or_empty_or_of_another_key_ends_the_start_with_a_sentence(tmp_path):
    certify(tmp_path)
    certificate = (tmp_path / "c.pem").read_text()
    certify(tmp_path)
    other_key = (tmp_path / "k.pem").read_text()
    both = ["--certfile", "c.pem", "--keyfile", "k.pem"]
    starts = [
        (both, {"k.pem": other_key}, "--certfile c.pem cannot be read: No such file or directory"),
        (both, {"c.pem": certificate}, "--keyfile k.pem cannot be read: No such file or directory"),
        (both, {"c.pem": "", "k.pem": other_key}, "--certfile c.pem is empty"),
        (both, {"c.pem": certificate, "k.pem": other_key}, "--certfile c.pem and --keyfile k.pem do not belong together"),
        (["--keyfile", "k.pem"], {"k.pem": other_key}, "--keyfile needs --certfile"),
    ]
    for arguments, files, sentence in starts:
        ended = refused(*arguments, write=files)
        assert ended.returncode != 0
        assert ended.stderr.splitlines()[-1].startswith(f"switchyard: {sentence}")
        assert "Traceback" not in ended.stderr


def serial_number(app):
    pem = ssl.get_server_certificate(("127.0.0.1", app.port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def replace_worker(app, by_signal):
    before = app.workers
    if by_signal == "KILL":
        os.kill(before[0], signal.SIGKILL)
    else:
        app.process.send_signal(signal.SIGHUP)
    wait_until(lambda: app.workers and not set(app.workers) & set(before))
    wait_until(app.answers)


def test_a_running_server_keeps_its_certificate_until_sighup_brings_a_good_one(tmp_path):
    app = OverTls("gunicorn", "--certfile", "c.pem", "--keyfile", "k.pem", **PRODUCTION)
    certify(app.folder)
    trusted = app.folder / "first.pem"
    trusted.write_bytes((app.folder / "c.pem").read_bytes())
    app.trusts = trusted
    certify(tmp_path, serial=2)
    breaks = [
        lambda: (app.folder / "c.pem").write_text(""),
        lambda: (app.folder / "c.pem").unlink(),
        lambda: (app.folder / "c.pem").write_bytes((tmp_path / "c.pem").read_bytes()),  # its key is not there yet
    ]

    def tls_health():
        headers = bearer("root", "admin")
        return requests.get(f"{app.url}/healthz", headers=headers, timeout=5, verify=app.trusts).json()["dependencies"]["tls"]

    with app:
        for break_it in breaks:
            break_it()
            replace_worker(app, "KILL")
            replace_worker(app, "HUP")
            assert serial_number(app) == 1
            wait_until(lambda: tls_health()["state"] == "degraded")
        wait_until(lambda: "do not belong together" in tls_health()["error"])  # /healthz caches its answer for a second
        assert app.log.count("certificate_refused") == len(breaks)
        assert app.log.count("Booting worker") == 1 + 2 * len(breaks), "no worker failed"

        (app.folder / "k.pem").write_bytes((tmp_path / "k.pem").read_bytes())
        app.trusts = app.folder / "c.pem"
        replace_worker(app, "HUP")
        assert serial_number(app) == 2
        wait_until(lambda: tls_health()["state"] == "up")
        assert "Traceback" not in app.log


@pytest.mark.parametrize("arguments", [["--preload"], ["--preload", "-w", "1"]])
def test_preload_is_refused_with_the_reason(arguments):
    ended = refused(*arguments)
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].startswith("switchyard: --preload is not supported: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", [["--proxy-protocol"], ["--keep-alive", "5"], ["--forwarded-allow-ips", "*"]])
def test_an_option_that_this_server_would_ignore_is_refused_with_the_reason(option):
    ended = refused(*option)
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].startswith(f"switchyard: {option[0]} is not supported: ")
    assert "Traceback" not in ended.stderr


def test_the_worker_class_may_be_given_with_a_colon():
    with Started("gunicorn", "-k", "app.serving.gunicorn_worker:Worker", **PRODUCTION) as app:
        replace_worker(app, "HUP")
        assert "Traceback" not in app.log


# The access log.


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def test_the_access_log_has_a_line_for_each_answer_and_no_credential():
    with Started("gunicorn", "--access-logfile", "access.log", **PRODUCTION) as app:
        requests.get(f"{app.url}/nowhere?writeKey=hunter2&a=1&token=hunter3", headers={"Referer": "https://page.test/"}, timeout=5)
        requests.post(f"{app.url}/api/telemetry/batch", json={"events": []}, headers={"X-Write-Key": WRITE_KEY}, timeout=5)
        websocket.create_connection(f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket&token=hunter4", timeout=5).close()
        path = app.folder / "access.log"
        wait_until(lambda: any("websocket" in line for line in lines_of(path)))
        lines = [line for line in lines_of(path) if "/livez" not in line]
    asked = re.escape("GET /nowhere?writeKey=***&a=1&token=*** HTTP/1.1")
    assert re.fullmatch(rf'127\.0\.0\.1 - - \[.*\] "{asked}" 404 \d+ "https://page\.test/" "python-requests/.*"', lines[0])
    assert re.search(r'"POST /api/telemetry/batch HTTP/1\.1" 200 21 "-"', lines[1])
    assert re.search(r'"GET /socket.io/\?EIO=4&transport=websocket&token=\*\*\* HTTP/1\.1" 101 ', lines[2])
    assert "hunter" not in "".join(lines)


def test_the_access_log_may_be_the_standard_output_in_a_format_of_ones_own_and_still_has_no_credential():
    wanted = "ACCESS %(m)s %(U)s %(s)s [%({x-write-key}i)s] [%({authorization}i)s] [%({http_authorization}e)s] %({content-type}o)s"
    with Started("gunicorn", "--access-logfile", "-", "--access-logformat", wanted, **PRODUCTION) as app:
        secret = {"X-Write-Key": WRITE_KEY, "Authorization": "Basic hunter2"}
        requests.get(f"{app.url}/api/flags", headers=secret, timeout=5)
        wait_until(lambda: "ACCESS GET /api/flags 200 [-] [-] [-] application/json" in app.log)
        assert "hunter2" not in app.log


def test_neither_log_shows_a_write_key_wherever_a_client_puts_it():
    wanted = "ACCESS %(r)s %(U)s %(q)s %(f)s %(a)s %({x-other}i)s %({http_x_other}e)s %({x-request-id}o)s"
    with Started("gunicorn", "--access-logfile", "-", "--access-logformat", wanted, **PRODUCTION) as app:
        key = WRITE_KEY.replace("k", "%6b", 1)
        for text in (f"/api/flags?write%4bey={WRITE_KEY}", f"/nowhere/{WRITE_KEY}", f"/nowhere/{key}", f"/{'x' * 190}{WRITE_KEY}"):
            asked = http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)  # `requests` would decode what need not be encoded
            asked.request("GET", text)
            asked.getresponse().read()
            asked.close()
        names = ("Referer", "User-Agent", "X-Other", "X-Request-Id")
        for name in names:
            value = f"https://x/?writeKey={key}" if name == "Referer" else WRITE_KEY
            requests.get(f"{app.url}/last/{name}", headers={name: value}, timeout=5)
        wait_until(lambda: all(f"ACCESS GET /last/{name} " in app.log for name in names))
        assert "request_refused" in app.log and "/nowhere/***" in app.log and "write%4bey=***" in app.log
        assert not [line for line in app.log.splitlines() if WRITE_KEY[:10] in line or key in line]


def test_without_the_option_there_is_no_access_log():
    with Started("gunicorn", **PRODUCTION) as app:
        requests.get(f"{app.url}/livez", timeout=5)
        assert "GET /livez" not in app.log


# Workers that are replaced.


def test_a_worker_is_replaced_after_its_requests_and_none_of_them_fails():
    with Started("gunicorn", "--max-requests", "30", **PRODUCTION) as app:
        (first,) = app.workers
        for _ in range(100):
            assert requests.get(f"{app.url}/livez", timeout=10).status_code == 200
        wait_until(lambda: first not in app.workers)
        assert len(re.findall("Booting worker", app.log)) >= 3
        assert "Traceback" not in app.log
        assert app.stop() < 10


# Where it listens.


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("::", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_flask_run_prints_an_address_that_can_be_opened(host, shown):
    class OnHost(Started):
        @property
        def url(self):
            return f"http://{shown}:{self.port}"

    with OnHost("flask", "--host", host) as app:
        wait_until(lambda: "listening on" in app.log)
        address = re.search(r"listening on (\S+)", app.log)[1]
        assert address == app.url
        assert requests.get(f"{address}/livez", timeout=5).status_code == 200
