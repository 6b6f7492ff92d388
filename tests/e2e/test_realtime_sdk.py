"""The client that front-end teams load, in a real browser and in Node: what it promises on a bad day."""

import gzip
import json

import pytest
import requests

from tests.apps import SECRET, bearer, token
from tests.servers.real import real
from tests.servers.switchyard import Switchyard
from tests.servers.website import Website

FAST = {
    "RATE_LIMIT_HTTP": "10000/second", "RT_TOPIC_RATE": "100000/second", "RT_LOG_MAX_MESSAGES": 6000, "RT_ACK_TIMEOUT_MS": 300,
    "JWT_LEEWAY_S": 0,
}  # fmt: skip
SERVICE = bearer("billing", "service")

NODE = """
const { io } = require("socket.io-client");
const { connect } = require(process.argv[1]);
const [url, token, topic] = process.argv.slice(2);
const print = (value) => console.log(JSON.stringify(value));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (is) => { while (!is()) await sleep(10); };
setTimeout(() => { console.error("it took too long"); process.exit(2); }, 60000).unref();
const fast = { transports: ["websocket"], reconnectionDelay: 20, reconnectionDelayMax: 100 };
const open = () => connect(io, url, { token, ...fast });
"""


@pytest.fixture(scope="module")
def app():
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **FAST) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(app, tmp_path_factory):
    """As it is served."""
    path = tmp_path_factory.mktemp("sdk") / "realtime.js"
    path.write_text(requests.get(f"{app.url}/sdk/realtime.js", timeout=5).text)
    return path


@pytest.fixture
def website(app, node):
    library = (node.node_path / "socket.io-client" / "dist" / "socket.io.min.js").read_bytes()
    page = f"<!doctype html><script src=/socket.io.js></script><script src={app.url}/sdk/realtime.js></script>"
    website = Website({"/page.html": page, "/socket.io.js": library})
    yield website
    website.close()


@pytest.fixture
def run(app, node, sdk, request):
    topic = f"sdk:{abs(hash(request.node.name))}"
    return lambda body: [
        json.loads(line)
        for line in node.run(
            f"{NODE}(async () => {{ {body}; process.exit(0); }})();", sdk, app.url, token("root", "admin"), topic, timeout_s=90
        ).splitlines()
    ]


def test_the_file_is_served_to_everybody_and_revalidated(app):
    first = requests.get(f"{app.url}/sdk/realtime.js", headers={"Origin": "https://shop.example.com"}, timeout=5)
    assert first.status_code == 200 and first.headers["Content-Type"].startswith("text/javascript")
    assert first.headers["Access-Control-Allow-Origin"]
    assert len(gzip.compress(first.content)) < 12_000, "a page loads it before it shows anything live"
    again = requests.get(f"{app.url}/sdk/realtime.js", headers={"If-None-Match": first.headers["ETag"]}, timeout=5)
    assert (again.status_code, again.text) == (304, "")


PUBLISH = """
  const headers = { "Content-Type": "application/json", Authorization: "Bearer " + token };
  const publish = (from, count) => fetch(url + "/api/realtime/publish", { method: "POST", headers,
    body: JSON.stringify({ messages: Array.from({ length: count }, (_, n) => ({ topic, payload: from + n, id: String(from + n) })) }) });
"""


def test_twenty_abrupt_ends_during_five_thousand_messages_leave_no_gap_and_double_nothing(run):
    (result,) = run(f"""{PUBLISH}
        const [seen, seqs, gaps] = [[], [], []];
        const client = open();
        client.subscribe(topic, (payload, {{ seq }}) => {{ seen.push(payload); seqs.push(seq); }}, {{ onGap: (gap) => gaps.push(gap) }});
        await until(() => client.position(topic));
        let ends = 0;
        const cutter = setInterval(() => {{
          const transport = client.socket.connected && ends < 20 && client.socket.io.engine.transport;
          if (transport) {{ ends++; transport.ws.terminate(); }}
        }}, 150);
        for (let n = 0; n < 5000 || ends < 20; n += 50) {{ if (n < 5000) await publish(n, 50); await sleep(25); }}
        clearInterval(cutter);
        await until(() => seen.length >= 5000);
        await sleep(300);
        print({{ ends, seen, gaps, ordered: seqs.every((seq, n) => seq === n + 1) }});
    """)
    assert result["ends"] == 20 and result["gaps"] == []
    assert result["ordered"] and result["seen"] == list(range(5000))


def test_a_third_of_the_acknowledgements_lost_costs_resends_and_no_message(app, run):
    (result,) = run(f"""{PUBLISH}
        const seen = [];
        let events = 0;
        const client = open();
        const emit = client.socket.emit.bind(client.socket);
        client.socket.emit = (name, frame, ...rest) => (frame && frame.type === "ack" && Math.random() < 0.3) || emit(name, frame, ...rest);
        client.socket.on("message", (frame) => {{ if (frame.type === "event") events++; }});
        client.subscribe(topic, (payload) => seen.push(payload));
        await until(() => client.position(topic));
        for (let n = 0; n < 1500; n += 50) await publish(n, 50);
        await until(() => seen.length >= 1500);
        print({{ seen, events }});
    """)
    assert result["seen"] == list(range(1500))
    assert result["events"] >= 1500


def test_publishing_faster_than_the_rate_is_paced_and_every_message_arrives_once(run):
    (result,) = run("""
        const seen = [];
        const client = open();
        client.subscribe(topic, (payload) => seen.push(payload));
        await until(() => client.position(topic));
        const answers = await Promise.all(Array.from({ length: 150 }, (_, n) => client.publish(topic, n)));
        await until(() => seen.length >= 150);
        print({ seen, seqs: answers.map((answer) => answer.seq), state: client.state });
    """)
    assert sorted(result["seen"]) == list(range(150)) and sorted(result["seqs"]) == list(range(1, 151))
    assert result["state"] == "live"


def test_more_topics_at_once_than_the_rate_allows_all_come_to_stand(run):
    (result,) = run("""
        const client = open();
        let connects = 0;
        client.socket.on("connect", () => connects++);
        await client.publish(topic, 1);
        const places = await Promise.all(Array.from({ length: 128 }, (_, n) => client.subscribe(`${topic}:${n}`, () => {}).ready));
        const late = await client.subscribe(`${topic}:late`, () => {}).ready.catch((error) => error.code);
        print([places.length, connects, late]);
    """)
    assert result == [128, 1, "limit_exceeded"]


def test_a_publish_while_an_expired_token_is_renewed_waits_for_the_fresh_one(run):
    (result,) = run(f"""
        let asked = 0;
        const fetchToken = async () => asked++ ? (await sleep(500), token) : "{token("root", "admin", ttl_s=2)}";
        const client = connect(io, url, {{ token: fetchToken, ...fast }});
        await until(() => asked === 2);
        print(await client.publish(topic, 1));
    """)
    assert result["seq"] == 1


def test_a_page_survives_a_restart_and_is_told_that_the_numbering_began_anew(app, page, website):
    page.goto(f"{website.url}/page.html")
    page.evaluate(
        """([url, token]) => {
          window.seen = []; window.gaps = []; window.states = []; window.published = [];
          window.client = Switchyard.connect(io, url, { token: async () => token, onState: (state) => window.states.push(state),
            reconnectionDelay: 50, reconnectionDelayMax: 200 });
          window.client.subscribe("notice:all", (payload) => window.seen.push(payload), { onGap: (gap) => window.gaps.push(gap) });
        }""",
        [app.url, token("root", "admin")],
    )
    page.wait_for_function("window.client.position('notice:all')", timeout=5000)
    publish(app, 1)
    page.wait_for_function("window.seen.length === 1", timeout=5000)
    app.stop()
    page.evaluate("() => { window.client.publish('notice:all', 2).then((answer) => window.published.push(answer)); }")
    app.start()
    page.wait_for_function("window.published.length && window.seen.length === 2", timeout=15000)
    publish(app, 3)
    page.wait_for_function("window.seen.length === 3", timeout=5000)
    assert page.evaluate("window.seen") == [1, 2, 3]
    assert {"topic": "notice:all", "reason": "epoch_changed"} in page.evaluate("window.gaps")
    assert page.evaluate("window.states")[:2] == ["connecting", "live"] and page.evaluate("window.states")[-2:] == ["offline", "live"]


def publish(app, payload):
    body = {"topic": "notice:all", "payload": payload}
    assert requests.post(f"{app.url}/api/realtime/publish", json=body, headers=SERVICE, timeout=5).json()["ok"]
