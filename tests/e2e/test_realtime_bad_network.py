"""Both clients on the stock libraries against a running server, where the network or the caller does what was reported."""

import json
import threading
import time

import pytest
import requests

from app.sdk.python import ConnectRefused, PublishFailed, RealtimeClient, SubscribeFailed
from app.sdk.python import requests as client_requests
from tests.apps import SECRET, bearer, token
from tests.servers import node as node_server
from tests.servers.ports import free_port
from tests.servers.real import real
from tests.servers.switchyard import Switchyard
from tests.servers.website import Website
from tests.servers.websocket_blocker import WebsocketBlocker

SETTINGS = {"RATE_LIMIT_HTTP": "10000/second", "RT_TOPIC_RATE": "100000/second", "RT_MAX_TOPICS": 3}
ADMIN = token("root", "admin")
SLOW_MS = 520  # each way: a round trip of more than a second, of which connecting takes several

NODE = """
const { io } = require("socket.io-client");
const { connect } = require(process.argv[1]);
const [url, token, topic] = process.argv.slice(2);
const print = (value) => console.log(JSON.stringify(value));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (is) => { while (!is()) await sleep(10); };
setTimeout(() => { console.error("it took too long"); process.exit(2); }, 25000).unref();
const open = (options) => connect(io, url, { token, reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
const code = (promise) => promise.then(() => "done", (error) => error.code);
"""


@pytest.fixture(scope="module")
def app():
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(app, tmp_path_factory):
    path = tmp_path_factory.mktemp("sdk") / "realtime.js"
    path.write_text(requests.get(f"{app.url}/sdk/realtime.js", timeout=5).text)
    return path


@pytest.fixture
def run(app, node, sdk, request):
    """Runs a body in Node and returns what it printed last."""
    topic = f"bad:{abs(hash(request.node.name))}"

    def run(body, url=app.url, by=node):
        script = f"{NODE}(async () => {{ {body}; process.exit(0); }})();"
        return json.loads(by.run(script, sdk, url, ADMIN, topic, timeout_s=60).splitlines()[-1])

    return run


@pytest.fixture
def connect(app):
    clients = []

    def connect(url=app.url, **options):
        clients.append(RealtimeClient(url, ADMIN, **{"reconnection_delay": 0.02, "reconnection_delay_max": 0.1, **options}))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(params=["drop", "silent"])
def deaf(app, request):
    proxy = WebsocketBlocker(app.port, request.param)
    yield proxy
    proxy.close()


@pytest.fixture
def slow_url(app, proxy_to):
    proxy = proxy_to(app.port)
    with proxy.toxic("latency", stream="upstream", latency=SLOW_MS), proxy.toxic("latency", stream="downstream", latency=SLOW_MS):
        yield f"http://127.0.0.1:{proxy.port}"


@pytest.fixture
def narrow_url(app, proxy_to):
    """A link on which 60,000 bytes take as long as six looks for an answer."""
    proxy = proxy_to(app.port)
    with proxy.toxic("bandwidth", stream="upstream", rate=20):
        yield f"http://127.0.0.1:{proxy.port}"


def publish(app, *payloads, topic="t"):
    body = {"messages": [{"topic": topic, "payload": payload} for payload in payloads]}
    assert requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("billing", "service"), timeout=5).json()["ok"]


def wait(is_there, within_s=10):
    deadline = time.monotonic() + within_s
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_in_node_a_websocket_that_hangs_is_followed_by_polling(run, deaf):
    transport, published, seen = run(
        """
        const client = open({ timeout: 700 });
        const seen = [];
        await client.subscribe(topic, (payload) => seen.push(payload)).ready;
        const published = await client.publish(topic, 1);
        await until(() => seen.length);
        print([client.socket.io.engine.transport.name, published.seq, seen]);
        """,
        url=deaf.url,
    )
    assert (transport, published, seen) == ("polling", 1, [1]) and deaf.upgrades


def test_in_python_a_websocket_that_hangs_is_followed_by_polling(app, connect, deaf):
    client = connect(deaf.url, request_timeout=0.7)
    seen = []
    assert client.subscribe("deaf", lambda payload, message: seen.append(payload)).wait(10)
    client.publish("deaf", 1)
    wait(lambda: seen == [1])
    assert client.sio.eio.current_transport == "polling" and deaf.upgrades == 1


def test_in_a_browser_a_websocket_that_hangs_is_followed_by_polling(app, node, page, deaf):
    library = (node.node_path / "socket.io-client" / "dist" / "socket.io.min.js").read_bytes()
    html = f"<!doctype html><script src=/io.js></script><script src={app.url}/sdk/realtime.js></script>"
    website = Website({"/page.html": html, "/io.js": library})
    page.goto(f"{website.url}/page.html")
    seen = page.evaluate(
        """async ([url, token]) => {
          const client = Switchyard.connect(io, url, { token, timeout: 700 });
          const seen = [];
          await client.subscribe("page", (payload) => seen.push(payload)).ready;
          await client.publish("page", 1);
          while (!seen.length) await new Promise((resolve) => setTimeout(resolve, 20));
          const large = await client.publish("page", "x".repeat(600000)).catch((error) => error.code);
          return [seen, large, client.state];
        }""",
        [deaf.url, ADMIN],
    )
    website.close()
    assert seen == [[1], "payload_too_large", "live"]


def test_in_node_on_a_slow_link_ready_comes_when_the_new_subscription_stands(run, slow_url):
    states, seen = run(
        """
        const states = [];
        const client = open({ onState: (state) => states.push(state) });
        const stop = client.subscribe(topic, () => {});
        await stop.ready;
        const seen = [];
        stop();
        await client.subscribe(topic, (payload) => seen.push(payload)).ready;
        const { seq } = await client.publish(topic, "new");
        await until(() => seen.length);
        print([states, [seq, ...seen]]);
        """,
        url=slow_url,
    )
    assert (states, seen) == (["connecting", "live"], [1, "new"])


def test_in_python_a_round_trip_of_more_than_a_second_still_connects(connect, slow_url):
    client = connect(slow_url)
    seen = []
    assert client.subscribe("slow", lambda payload, message: seen.append(payload)).wait(20)
    assert client.publish("slow", 1)["seq"] == 1
    wait(lambda: seen == [1])
    client.sio.eio.ws.sock.close()  # and connects again
    assert client.publish("slow", 2)["seq"] == 2
    wait(lambda: seen == [1, 2])


def test_in_node_a_payload_that_is_still_leaving_over_a_narrow_link_is_sent_once(run, sdk, narrow_url, tmp_path):
    impatient = tmp_path / "impatient.js"
    impatient.write_text(sdk.read_text().replace("const ANSWER_MS = 5000", "const ANSWER_MS = 500"))
    assert impatient.read_text() != sdk.read_text()
    states, frames, took_ms, published = run(
        f"""
        const states = [], frames = [], begin = Date.now();
        const client = require({json.dumps(str(impatient))}).connect(io, url, {{ token, onState: (state) => states.push(state) }});
        const emit = client.socket.emit;
        client.socket.emit = function (name, frame, ...rest) {{ frames.push(frame.type); return emit.call(this, name, frame, ...rest); }};
        const published = await client.publish(topic, "x".repeat(60000));
        print([states, frames, Date.now() - begin, published]);
        """,
        url=narrow_url,
    )
    assert (states, frames, took_ms > 2500) == (["connecting", "live"], ["publish"], True)
    assert set(published) == {"seq", "epoch"}


def test_in_python_a_payload_that_is_still_leaving_over_a_narrow_link_is_sent_once(connect, narrow_url, monkeypatch):
    monkeypatch.setattr(client_requests, "ANSWER_S", 0.5)
    states, frames = [], []
    client = connect(narrow_url, on_state=lambda state, detail: states.append(state))
    emit, begin = client.emit, time.monotonic()
    client.emit = lambda frame, callback=None: (frames.append(frame["type"]), emit(frame, callback))
    assert set(client.publish("narrow", "x" * 60_000)) == {"seq", "epoch"}
    assert (states, frames, time.monotonic() - begin > 2.5) == (["connecting", "live"], ["publish"], True)


def test_in_node_a_payload_of_600_kb_is_refused_at_once_and_costs_no_connection(run):
    codes, connects, took_ms = run("""
        const client = open();
        let connects = 0;
        client.socket.on("connect", () => connects++);
        const begin = Date.now();
        const early = code(client.publish(topic, "x".repeat(600000)));
        await client.publish(topic, "small");
        const codes = await Promise.all([early, ...[600000, 70000].map((size) => code(client.publish(topic, "x".repeat(size))))]);
        print([codes, connects, Date.now() - begin]);
    """)
    assert codes == ["payload_too_large"] * 3 and connects == 1 and took_ms < 5000


def test_in_python_a_payload_of_600_kb_is_refused_at_once_and_costs_no_connection(connect):
    states = []
    client = connect(on_state=lambda state, detail: states.append(state))
    for size in (600_000, 70_000):
        with pytest.raises(PublishFailed) as caught:
            client.publish("large", "x" * size)
        assert caught.value.code == "payload_too_large"
    assert client.publish("large", "small")["seq"] == 1 and states == ["connecting", "live"]


def test_in_node_what_waits_for_a_server_that_is_not_there_is_given_up_in_time(run):
    states, codes = run(
        """
        const states = [];
        const client = open({ onState: (state) => states.push(state), reconnectionAttempts: 4, reconnectionDelay: 300 });
        const ready = (giveUpMs) => client.subscribe(topic, () => {}, { giveUpMs }).ready;
        const early = await Promise.all([client.publish(topic, 1, { giveUpMs: 50 }), ready(50)].map(code));
        const late = await Promise.all([client.publish(topic, 1, { giveUpMs: Infinity }), ready(Infinity)].map(code));
        print([states, [...early, ...late, await code(client.publish(topic, 1))]]);
        """,
        url=f"http://127.0.0.1:{free_port()}",
    )
    assert states == ["connecting", "offline", "closed"] and codes == ["unavailable"] * 5


@pytest.mark.parametrize("options", [{"give_up_s": 0.3}, {"reconnection_attempts": 2}, {"reconnection": False}])
def test_in_python_a_server_that_is_not_there_is_given_up_in_time(connect, options):
    before = threading.active_count()
    with pytest.raises(ConnectRefused) as caught:
        connect(f"http://127.0.0.1:{free_port()}", **options)
    assert caught.value.answer["code"] == "unavailable"
    wait(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("version", ["2.5.0", "4.3.2"])
def test_in_node_a_socketio_client_that_is_too_old_is_named_at_once(run, version):
    old = node_server.Node(f"socket.io-client@{version}")
    said = run("try { print(connect(require('socket.io-client'), url, { token }).state); } catch (error) { print(error.message); }", by=old)
    assert said == "Switchyard needs socket.io-client 4.4 or newer; the one that was given is older."


def test_in_node_the_oldest_socketio_client_that_is_taken_works(run):
    assert run(
        """
        const client = open({ transports: ["websocket"] });
        const seen = [];
        await client.subscribe(topic, (payload) => seen.push(payload)).ready;
        client.socket.io.engine.close();
        await client.publish(topic, 1);
        await until(() => seen.length);
        print([seen, await code(client.publish(topic, "x".repeat(600000)))]);
        """,
        by=node_server.Node("socket.io-client@4.4.1"),
    ) == [[1], "payload_too_large"]


def test_in_node_subscriptions_share_a_topic_whatever_its_name_and_a_refused_one_costs_nothing(run):
    result = run("""
        const errors = [];
        const client = open({ onError: (error) => errors.push(error.topic) });
        const seen = { first: [], second: [], constructor: [] };
        const stop = client.subscribe("__proto__", (payload) => seen.first.push(payload));
        const ready = [stop, client.subscribe("__proto__", (payload) => seen.second.push(payload)),
          client.subscribe("constructor", (payload) => seen.constructor.push(payload)), client.subscribe("not a topic", () => {}),
          client.subscribe(topic, () => {}), client.subscribe("one too many", () => {})].map((each) => code(each.ready));
        const codes = await Promise.all(ready);
        await client.publish("__proto__", 1);
        await stop();
        client.socket.io.engine.transport.ws.terminate();
        await client.publish("__proto__", 2);
        await client.publish("constructor", 3);
        await until(() => seen.constructor.length && seen.second.length === 2);
        print([codes, Object.entries(seen)]);
    """)
    assert result[0] == ["done", "done", "done", "bad_request", "done", "bad_request"]
    assert result[1] == [["first", [1]], ["second", [1, 2]], ["constructor", [3]]]


def test_in_python_a_refused_topic_costs_nothing_and_two_subscriptions_share_one(app, connect):
    errors = []
    client = connect(on_error=errors.append)
    seen = {"a": [], "b": [], "again": []}
    first = client.subscribe("py:a", lambda payload, message: seen["a"].append(payload))
    ready = [first, client.subscribe("py:a", lambda payload, message: seen["again"].append(payload))]
    ready += [client.subscribe(topic, lambda payload, message: seen["b"].append(payload)) for topic in ("py:b", "py:c")]
    assert all(each.wait(5) for each in ready)
    for topic, code in (("py:d", "limit_exceeded"), ("no topic", "bad_request")):
        with pytest.raises(SubscribeFailed) as caught:
            client.subscribe(topic, print).wait(5)
        assert caught.value.code == code
    publish(app, 1, topic="py:a")
    wait(lambda: seen["again"] == [1])
    assert first.unsubscribe().wait(5)
    client.sio.eio.ws.sock.close()
    assert client.publish("py:b", 2) and client.publish("py:a", 3)
    wait(lambda: seen == {"a": [1], "b": [2], "again": [1, 3]})


def test_in_python_a_slow_handler_makes_no_thread_per_message(app, connect):
    client = connect()
    seen, may_go = [], threading.Event()

    def slow(payload, message):
        may_go.wait(20)
        seen.append(payload)

    assert client.subscribe("py:busy", slow).wait(5)
    before = threading.active_count()
    for first in range(0, 600, 100):
        publish(app, *range(first, first + 100), topic="py:busy")
    time.sleep(0.5)
    assert threading.active_count() == before
    assert client.publish("py:other", 1)["seq"] == 1, "a handler that waits holds up nobody who publishes"
    may_go.set()
    wait(lambda: len(seen) == 600, within_s=20)
    assert seen == list(range(600))
