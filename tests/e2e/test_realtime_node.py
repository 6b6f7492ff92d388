"""Node's own socket.io-client, as a browser uses it: no code of ours on the other side."""

import json

import pytest

from tests.apps import SECRET, WRITE_KEY, token
from tests.servers.real import real
from tests.servers.switchyard import Switchyard

SCRIPT = """
const { io } = require("socket.io-client");
const [url, tokens, transports] = [process.argv[1], JSON.parse(process.argv[2]), JSON.parse(process.argv[3])];
const options = { transports, reconnectionDelay: 50, reconnectionDelayMax: 200, forceNew: true };
const connect = (auth, namespace = "/realtime") => io(url + namespace, { ...options, auth });
const once = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args[0])));
const say = (socket, frame) => socket.timeout(5000).emitWithAck("message", frame);
const until = async (is) => { while (!is()) await new Promise((resolve) => setTimeout(resolve, 10)); };
const print = (value) => console.log(JSON.stringify(value));
setTimeout(() => { console.error("it took too long"); process.exit(2); }, 20000).unref();
"""


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def app(request):
    settings = {"WRITE_KEYS": f"web:{WRITE_KEY}", "RATE_LIMIT_HTTP": "10000/second"}
    settings |= {"RT_CONNECTION_BURST": 1000, "RT_TOPIC_RATE": "1000/second"}
    with real(Switchyard, request.param, JWT_SECRET=SECRET, **settings) as running:
        yield running


@pytest.fixture(params=[["websocket"], ["polling"], ["polling", "websocket"]], ids=["websocket", "polling", "upgrade"])
def run(request, app, node):
    """Run a script against the server: the values it printed."""

    def run(body, **tokens):
        tokens = {"admin": token("root", "admin"), **tokens}
        script = f"{SCRIPT}(async () => {{ {body}; process.exit(0); }})();"
        return [json.loads(line) for line in node.run(script, app.url, json.dumps(tokens), json.dumps(request.param)).splitlines()]

    return run


def test_a_stock_client_subscribes_publishes_and_receives(run):
    subscribed, published, event, transport = run("""
        const socket = connect({ token: tokens.admin });
        await once(socket, "connect");
        const topic = "node:" + Math.random().toString(36).slice(2);
        const received = [];
        socket.on("message", (frame) => received.push(frame));
        print(await say(socket, { type: "subscribe", topic, id: "s" }));
        print(await say(socket, { type: "publish", topic, id: "p", payload: { text: "größer 😀" } }));
        await until(() => received.length);
        print(received[0]);
        await until(() => socket.io.engine.transport.name === transports[transports.length - 1]);
        print(socket.io.engine.transport.name);
    """)
    assert subscribed["ok"] and published["seq"] == 1
    assert event["payload"] == {"text": "größer 😀"}
    assert transport in ("websocket", "polling")


def test_a_stock_client_gets_many_messages_in_order_and_without_a_hole(run):
    (seqs,) = run("""
        const [reader, writer] = [connect({ token: tokens.admin }), connect({ token: tokens.admin })];
        const topic = "node:" + Math.random().toString(36).slice(2);
        await say(reader, { type: "subscribe", topic });
        const seqs = [];
        reader.on("message", (frame) => {
          if (frame.type !== "event") return;
          seqs.push(frame.seq);
          reader.emit("message", { type: "ack", topic, seq: frame.seq });
        });
        for (let number = 0; number < 300; number++) {
          writer.emit("message", { type: "publish", topic, id: String(number), payload: number });
        }
        await until(() => seqs.length === 300);
        print(seqs);
    """)
    assert seqs == list(range(1, 301))


def test_a_stock_client_that_is_refused_learns_code_and_message(run):
    refusals = run(
        """
        for (const auth of [{}, { token: "nonsense" }, { token: tokens.expired }, { token: tokens.writeKey }]) {
          for (const namespace of ["/realtime", "/"]) {
            const socket = connect(auth, namespace);
            print((await once(socket, "connect_error")).data);
            socket.close();
          }
        }
        """,
        expired=token("u1", ttl_s=-60),
        writeKey=WRITE_KEY,
    )
    assert [refusal["code"] for refusal in refusals[::2]] == ["unauthorized", "unauthorized", "token_expired", "forbidden"]
    assert refusals[::2] == refusals[1::2]


def test_errors_come_to_the_callback_and_without_one_as_a_message(run):
    answer, message, pong, still_connected = run("""
        const socket = connect({ token: tokens.admin });
        print(await say(socket, { type: "subscribe", topic: "not a topic", id: "x" }));
        const [message, pong] = [once(socket, "message"), once(socket, "pong")];
        socket.emit("message", { type: "publish", topic: "t", id: "b", payload: Buffer.from("binary") });
        print(await message);
        socket.emit("ping");
        print(await pong);
        print(socket.connected);
    """)
    assert (answer["type"], answer["code"], answer["id"]) == ("error", "bad_request", "x")
    assert (message["code"], message["id"]) == ("bad_request", "b")
    assert isinstance(pong["ts"], int) and still_connected


def test_a_business_event_reaches_both_namespaces(run):
    assert run("""
        const sockets = [connect({ token: tokens.admin }), connect({ token: tokens.admin }, "/")];
        await Promise.all(sockets.map((socket) => once(socket, "connect")));
        const updates = sockets.map((socket) => once(socket, "reservation:update"));
        const body = JSON.stringify({ event: "reservation:update", to: "user:root", payload: { id: 7 } });
        const headers = { "Content-Type": "application/json", Authorization: "Bearer " + tokens.admin };
        await fetch(url + "/api/realtime/emit", { method: "POST", headers, body });
        print(await Promise.all(updates));
    """) == [[{"id": 7}, {"id": 7}]]


def test_a_stock_client_that_calls_connect_several_times_stays_connected_and_gets_its_messages(run):
    errors, received, connected = run("""
        const { Manager } = require("socket.io-client");
        const manager = new Manager(url, options);
        const first = manager.socket("/", { auth: { token: tokens.admin } });
        await once(first, "connect");
        const socket = manager.socket("/realtime", { auth: { token: tokens.admin } });
        const errors = [], received = [];
        socket.on("connect_error", (error) => errors.push(error.message));
        socket.on("message", (frame) => frame.type === "event" && received.push(frame.payload));
        for (let times = 0; times < 4; times++) socket.connect();
        const topic = "node:" + Math.random().toString(36).slice(2);
        await say(socket, { type: "subscribe", topic });
        await say(socket, { type: "publish", topic, id: "p", payload: 7 });
        await until(() => received.length);
        print(errors); print(received); print(socket.connected && first.connected);
    """)
    assert (errors, received, connected) == ([], [7], True)


def test_a_stock_client_that_offers_subprotocols_connects_and_an_unknown_namespace_tells_it_so(run):
    answer, refusal = run("""
        const socket = io(url + "/realtime", { ...options, auth: { token: tokens.admin }, protocols: ["x", "y"] });
        print(await say(socket, { type: "subscribe", topic: "flags" }));
        const error = await once(connect({ token: tokens.admin }, "/nowhere"), "connect_error");
        print([error.message, error.data]);
    """)
    assert answer["ok"]
    assert "no such namespace" in refusal[0] and refusal[1]["code"] == "not_found"


@pytest.mark.parametrize("by", ["gunicorn", "flask"])
def test_a_stock_client_comes_back_by_itself_after_a_restart(switchyard, node, by):
    app = switchyard(by, JWT_SECRET=SECRET)
    script = f"""{SCRIPT}
        const sockets = [["websocket"], ["polling"], ["polling", "websocket"]].map(
          (transports) => io(url + "/realtime", {{ ...options, transports, auth: (give) => give({{ token: tokens.admin }}) }}));
        let connects = 0;
        sockets.forEach((socket) => socket.on("connect", () => {{ connects++; print(connects); }}));
        (async () => {{
          await until(() => connects === 6);
          print(await Promise.all(sockets.map((socket) => say(socket, {{ type: "subscribe", topic: "t" }}))));
          process.exit(0);
        }})();
    """
    with node.spawn(script, app.url, json.dumps({"admin": token("root", "admin")}), "[]") as process:
        lines = (json.loads(line) for line in process.stdout)
        assert [next(lines) for _ in range(3)] == [1, 2, 3]
        assert app.stop() < 2.5
        app.start()
        assert [next(lines) for _ in range(3)] == [4, 5, 6]
        assert all(answer["ok"] for answer in next(lines))
