"""Many clients that send telemetry and remember what they were promised, and the comparison with what MongoDB holds."""

import itertools
import json
import threading
import time

import requests
from pymongo import MongoClient

from tests.apps import SECRET, WRITE_KEY, token
from tests.waiting import wait_until

SETTINGS = {
    "JWT_SECRET": SECRET,
    "WRITE_KEYS": f"web:{WRITE_KEY}",
    "RATE_LIMIT_HTTP": "100000/second",
    "MONGO_TIMEOUT_MS": 500,
    "SPOOL_DRAIN_EVENTS_PER_SECOND": 100_000,
}
ADMIN = {"Authorization": f"Bearer {token('boss', 'admin')}"}
EVENTS_A_BATCH = 5
COLLECTION = "telemetry_events"


class Clients:
    """Threads that send batches until told to stop. `saved` are the names of the events that were answered as saved.

    An SDK sends an event again, with the same eventId, until it is answered as saved; so do these. Every second batch
    has no eventIds and is never sent again, so that nothing but our own identity keeps its events from being there twice.
    """

    def __init__(self, url, count=8, pause_s=0.0):
        self.url = url
        self.saved: set[str] = set()
        self.sent: set[str] = set()
        self.answers: dict[str, int] = {}
        self.slowest_s = 0.0
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(f"c{next(_numbers)}",)) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name):
        with requests.Session() as session:
            session.headers["X-Write-Key"] = WRITE_KEY
            for number in itertools.count():
                if self._stop.is_set():
                    return
                names = [f"{name}-{number}-{n}" for n in range(EVENTS_A_BATCH)]
                self._send(session, names, has_ids=number % 2 == 0)
                time.sleep(self._pause_s)

    def _send(self, session, names, has_ids):
        body = {"app": "web", "events": [{"type": "event", "name": name, **({"eventId": name} if has_ids else {})} for name in names]}
        self.sent.update(names)
        for _ in range(20 if has_ids else 1):
            if self._ask(session, body) or self._stop.wait(0.05):
                break

    def _ask(self, session, body):
        """True when it was answered as saved."""
        started = time.monotonic()
        try:
            response = session.post(f"{self.url}/api/telemetry/batch", json=body, timeout=30)
            answer = response.json()
        except (requests.RequestException, ValueError):
            self._count("no answer", started)
            return False
        kind = answer["storage"] if answer["ok"] else answer["error"]["code"]
        self._count(kind, started)
        if answer["ok"]:
            assert answer["saved"] == EVENTS_A_BATCH
            with self._lock:
                self.saved.update(event["name"] for event in body["events"])
        return answer["ok"]

    def _count(self, kind, started):
        with self._lock:
            self.answers[kind] = self.answers.get(kind, 0) + 1
            if kind != "no answer":
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)

    def until(self, condition, within_s=30):
        """Go on sending until it holds."""
        wait_until(condition, within_s, show=lambda: self.answers)


_numbers = itertools.count()


def health(url):
    return requests.get(f"{url}/healthz", headers=ADMIN, timeout=10).json()["dependencies"]


def wait_until_drained(app, within_s=40):
    """Nothing is left on the disk."""
    folder = app.data_dir / "spool"
    wait_until(lambda: not list(folder.glob("events-*.jsonl")), within_s, show=lambda: f"{list(folder.iterdir())}\n{app.log[-3000:]}")


def sdk_line(**fields):
    """Return an event as an SDK sends it, on a line of its own."""
    return json.dumps({"app": "web", "type": "event", "name": "a", **fields}).encode() + b"\n"


def stored_names(uri):
    """The name of every document, as often as it stands there."""
    with MongoClient(uri) as client:
        return [document["name"] for document in client.get_default_database()[COLLECTION].find({}, {"name": 1, "_id": 0})]


def assert_kept(clients, uri, at_least=20):
    """The promise: what was answered as saved is in MongoDB, and nothing is there twice or out of nowhere."""
    names = stored_names(uri)
    assert len(clients.saved) >= at_least, clients.answers
    assert clients.saved - set(names) == set(), "answered as saved and lost"
    assert len(names) == len(set(names)), "stored twice"
    assert set(names) <= clients.sent
