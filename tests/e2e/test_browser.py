"""A page of another origin in a real browser: telemetry that survives the page's end, and a live message."""

import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer, token
from tests.servers.real import real
from tests.servers.switchyard import Switchyard
from tests.servers.website import Website

ADMIN = bearer("root", "admin")


@pytest.fixture(scope="module")
def app():
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}") as running:
        yield running


@pytest.fixture(scope="module")
def website(node):
    library = (node.node_path / "socket.io-client" / "dist" / "socket.io.min.js").read_bytes()
    website = Website({"/": "", "/page.html": "<!doctype html><script src=/socket.io.js></script>", "/socket.io.js": library})
    yield website
    website.close()


@pytest.fixture
def shop(page, website):
    """A page of the front-end team, loaded."""
    page.goto(f"{website.url}/page.html")
    return page


def wait_for_events(app, session_id, count, within_s=10):
    deadline = time.monotonic() + within_s
    while True:
        query = {"sessionId": session_id, "limit": 100}
        events = requests.get(f"{app.url}/api/telemetry/events", params=query, headers=ADMIN, timeout=5).json()["events"]
        if len(events) >= count or time.monotonic() > deadline:
            return sorted(event["name"] for event in events)
        time.sleep(0.1)


BATCH = """
    const batch = (sessionId, ...names) => JSON.stringify({
      app: "shop", sessionId, sentAt: Date.now(),
      events: names.map((name) => ({ type: "event", name, ts: Date.now(), props: { text: "größer 😀" } })),
    });
"""


def test_a_batch_sent_by_fetch_with_keepalive_arrives_and_its_answer_can_be_read(app, shop):
    answer = shop.evaluate(
        f"""async ([url, key]) => {{ {BATCH}
          const response = await fetch(`${{url}}/api/telemetry/batch`, {{
            method: "POST", keepalive: true, body: batch("fetched", "a", "b"),
            headers: {{ "Content-Type": "application/json", "X-Write-Key": key }},
          }});
          return {{ status: response.status, requestId: response.headers.get("X-Request-Id"), ...(await response.json()) }};
        }}""",
        [app.url, WRITE_KEY],
    )
    assert (answer["status"], answer["ok"], answer["saved"]) == (200, True, 2)
    assert answer["requestId"]
    assert wait_for_events(app, "fetched", 2) == ["a", "b"]


def test_what_a_page_sends_while_it_is_closed_arrives(app, shop, website):
    """sendBeacon cannot set a header, so the write key stands in the address; a text body needs no preflight."""
    shop.evaluate(
        f"""([url, key]) => {{ {BATCH}
          addEventListener("pagehide", () => {{
            const address = `${{url}}/api/telemetry/batch?writeKey=${{key}}`;
            navigator.sendBeacon(address, batch("closed", "beacon1", "beacon2"));
            fetch(address, {{ method: "POST", keepalive: true, body: batch("closed", "kept alive") }});
          }});
        }}""",
        [app.url, WRITE_KEY],
    )
    shop.goto(f"{website.url}/")
    assert wait_for_events(app, "closed", 3) == ["beacon1", "beacon2", "kept alive"]


def test_a_page_receives_what_a_backend_publishes(app, shop):
    shop.evaluate(
        """([url, token]) => new Promise((resolve, reject) => {
          window.frames_ = [];
          const socket = io(`${url}/realtime`, { auth: { token } });
          socket.on("connect_error", reject);
          socket.on("message", (frame) => window.frames_.push(frame));
          socket.emit("message", { type: "subscribe", topic: "notice:all", id: "s" }, resolve);
        })""",
        [app.url, token("visitor")],
    )
    body = {"topic": "notice:all", "payload": {"text": "größer 😀"}, "id": "m1"}
    service = bearer("billing", "service")
    published = requests.post(f"{app.url}/api/realtime/publish", json=body, headers=service, timeout=5).json()
    shop.wait_for_function("window.frames_.some((frame) => frame.type === 'event')", timeout=5000)
    (event,) = [frame for frame in shop.evaluate("window.frames_") if frame["type"] == "event"]
    assert (event["topic"], event["payload"], event["id"]) == ("notice:all", body["payload"], "m1")
    assert (event["seq"], event["epoch"]) == (published["seq"], published["epoch"])
