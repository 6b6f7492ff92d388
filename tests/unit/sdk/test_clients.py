"""What both clients make of what a server says, frame by frame: the one for browsers and the one for Python, over a socket that
is none. The cases are in tests/cases/realtime_client/."""

import json
import threading
from pathlib import Path

import pytest
from socketio.exceptions import ConnectionError

from app.sdk.python import ConnectRefused, RealtimeClient

REPOSITORY = Path(__file__).parents[3]
CASES = json.loads((REPOSITORY / "tests" / "cases" / "realtime_client" / "epochs.json").read_text())
SDK = REPOSITORY / "app" / "sdk" / "realtime.js"


class Socket:
    """What RealtimeClient uses of python-socketio's client; it is never connected to anything."""

    connected = True

    def __init__(self):
        self.handlers, self.sent, self.waiting = {}, [], {}

    def on(self, event, handler, namespace):
        self.handlers[event] = handler

    def connect(self, url, auth, **_):
        self.auth = auth
        self.handlers["connect"]()

    def emit(self, event, frame, namespace, callback):
        self.sent.append(frame)
        if frame["type"] == "subscribe":
            self.waiting[frame["topic"]] = callback

    def say(self, frame):
        """An answer comes to the callback that waits for it; all else is a message."""
        answered = self.waiting.pop(frame.get("topic"), None) if frame["type"] == "ack" else None
        (answered or self.handlers["message"])(frame)

    def disconnect(self):
        self.connected = False

    def asked(self):
        """The positions of all subscriptions that were asked for."""
        return [{name: frame[name] for name in ("since", "epoch") if name in frame} for frame in self.sent if frame["type"] == "subscribe"]


@pytest.fixture
def socket():
    return Socket()


@pytest.fixture
def client(socket):
    client = RealtimeClient("http://nowhere", "token", sio=socket)
    yield client
    client.close()


def frame_of(step):
    return {"topic": "t", "payload": step.get("seq"), "message": "", "retryable": False, **step}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_in_python(client, socket, case):
    seen, gaps = [], []
    client.subscribe("t", lambda payload, message: seen.append([message["epoch"], payload]), on_gap=lambda gap: gaps.append(gap["reason"]))
    if "position" in case:
        before = case["position"]
        socket.say(frame_of({"type": "ack", "seq": before["since"], "epoch": before["epoch"]}))
    socket.sent.clear()
    for step in case["steps"]:
        socket.say(frame_of(step))
    is_done = threading.Event()
    client.subscriptions.call(is_done.set)  # after the handlers of what came
    assert is_done.wait(5)
    assert (seen, gaps, socket.asked()) == (case["seen"], case["gaps"], case["asked"])


NODE = """
const { connect } = require(process.argv[1]);
const cases = JSON.parse(process.argv[2]);
const open = (token = "token", isLive = true) => {
  const socket = { connected: true, handlers: {}, sent: [], waiting: {}, io: { on() {}, opts: {} },
    on(name, handler) { this.handlers[name] = handler; },
    emit(name, frame, callback) { this.sent.push(frame); if (frame.type === "subscribe") this.waiting[frame.topic] = callback; },
    say(frame) { // an answer comes to the callback that waits for it; all else is a message
      const answered = frame.type === "ack" && this.waiting[frame.topic];
      delete this.waiting[frame.topic];
      (answered || this.handlers.message)(frame);
    },
    timeout() { return this; }, disconnect() {}, connect() {} };
  const client = connect((url, options) => { socket.options = options; return socket; }, "http://nowhere", { token });
  if (isLive) socket.handlers.connect();
  return { client, socket };
};
"""


@pytest.fixture
def run(node):
    def run(body):
        script = f"{NODE}(async () => {{ {body}; process.exit(0); }})();"
        return [json.loads(line) for line in node.run(script, SDK, json.dumps(CASES)).splitlines()]

    return run


def test_in_javascript(run):
    results = run("""
      for (const { steps, position } of cases) {
        const { client, socket } = open();
        const [seen, gaps] = [[], []];
        const onGap = (gap) => gaps.push(gap.reason);
        client.subscribe("t", (payload, message) => seen.push([message.epoch, payload]), { onGap });
        const say = (step) => socket.say({ topic: "t", payload: step.seq, message: "", retryable: false, ...step });
        if (position) say({ type: "ack", seq: position.since, epoch: position.epoch });
        socket.sent.length = 0;
        steps.forEach(say);
        const asked = socket.sent.filter((frame) => frame.type === "subscribe");
        console.log(JSON.stringify({ seen, gaps, asked: asked.map(({ since, epoch }) => ({ since, epoch })) }));
      }
    """)
    expected = [{key: case[key] for key in ("seen", "gaps", "asked")} for case in CASES]
    assert dict(zip([case["name"] for case in CASES], results, strict=True)) == dict(
        zip([case["name"] for case in CASES], expected, strict=True)
    )


def test_in_python_who_subscribes_while_a_connection_is_being_made_is_asked_for_when_it_is_there(client, socket):
    client.subscribe("early", print)
    client.lost("transport close")
    client.connection_number += 1
    assert list(socket.auth()["resume"]) == ["early"]
    client.subscribe("late", print)
    socket.sent.clear()
    client.connected()
    assert [frame["topic"] for frame in socket.sent] == ["late"]


def test_in_javascript_who_subscribes_while_a_connection_is_being_made_is_asked_for_when_it_is_there(run):
    assert run("""
      const { client, socket } = open("token", false);
      client.subscribe("early", () => {});
      const auth = await new Promise((give) => socket.options.auth(give));
      client.subscribe("late", () => {});
      socket.handlers.connect();
      console.log(JSON.stringify([Object.keys(auth.resume), socket.sent.map((frame) => frame.topic)]));
    """) == [[["early"], ["late"]]]


def test_in_javascript_what_waits_for_a_connection_is_told_why_there_will_be_none(run):
    assert (
        run("""
      const { client, socket } = open("token", false);
      const print = (error) => console.log(JSON.stringify([error.code, error.message]));
      socket.connected = socket.active = false;
      const waiting = [client.subscribe("t", () => {}).ready, client.publish("t", 1)];
      const refusal = new Error("The token is not valid.");
      refusal.data = { code: "unauthorized", message: "The token is not valid.", retryable: false };
      socket.handlers.connect_error(refusal);
      for (const late of [...waiting, client.subscribe("u", () => {}).ready, client.publish("u", 1)]) await late.catch(print);
    """)
        == [["unauthorized", "The token is not valid."]] * 4
    )


def test_in_javascript_where_a_token_can_be_renewed_a_refusal_ends_nothing(run):
    assert run("""
      const { client, socket } = open(() => "another", false);
      socket.connected = socket.active = false;
      let outcome = "waits";
      client.subscribe("t", () => {}).ready.catch(() => { outcome = "rejected"; });
      socket.handlers.connect_error(Object.assign(new Error("no"), { data: { code: "token_expired", retryable: false } }));
      await new Promise((resolve) => setTimeout(resolve, 20));
      console.log(JSON.stringify([outcome, client.state]));
    """) == [["waits", "refused"]]


def test_in_python_a_refused_connection_raises_what_the_server_said(socket):
    def connect(url, **_):
        socket.handlers["connect_error"]({"message": "no", "data": {"code": "unauthorized", "message": "no", "retryable": False}})
        raise ConnectionError("One or more namespaces failed to connect")

    socket.connect = connect
    with pytest.raises(ConnectRefused, match="unauthorized: no") as caught:
        RealtimeClient("http://nowhere", "token", sio=socket)
    assert caught.value.answer["code"] == "unauthorized"


def test_in_python_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="python-socketio\\[client\\]"):
        RealtimeClient("http://nowhere", "token")


def test_in_javascript_a_subscription_says_when_it_stands_and_why_it_may_not(run):
    assert run("""
      const { client, socket } = open();
      const print = (value) => console.log(JSON.stringify(value));
      const [stands, refused, ended] = ["t", "secret", "u"].map((topic) => client.subscribe(topic, () => {}));
      socket.say({ type: "ack", topic: "t", epoch: "E", seq: 4 });
      socket.say({ type: "error", topic: "secret", code: "forbidden", message: "no", retryable: false });
      ended();
      print(await stands.ready);
      await refused.ready.catch((error) => print([error.code, error.message]));
      await ended.ready.catch((error) => print(error.message));
      client.subscribe("nobody waits for this one", () => {});
      client.close();
      await new Promise((resolve) => setTimeout(resolve, 20));
      print("and no rejection is left over");
    """) == [{"since": 4, "epoch": "E"}, ["forbidden", "no"], "unsubscribed", "and no rejection is left over"]
