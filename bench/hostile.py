"""What hostile clients cost an ordinary one: each attack of bench/attacks.py alone, then all of them at once.

    .venv/bin/python -m bench.hostile                    no attack, each alone, all at once; half a minute each
    .venv/bin/python -m bench.hostile --only all --seconds 60

Ten times a second the ordinary client sends a batch, gets a live message, pings its connection and requests /livez. Each attack
runs against a new server with an empty folder. At the end the command reports what the client lost: failed requests, events
missing in the storage or the statistics, missing live messages, and the message of a quiet topic or that message's id. It exits
with 1 if anything was lost.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests
import socketio
from requests.adapters import HTTPAdapter

from app.identity.tokens import make_token
from bench.attacks import ATTACKS, Victim
from bench.figures import percentile
from tests.servers.switchyard import Switchyard

SECRET = "a secret of this measurement, long enough"
OWN_KEY, PUBLIC_KEY = "wk_the_key_of_the_shop", "wk_a_key_that_is_public"
TOPIC, QUIET_TOPIC = "notice:global", "notice:quiet"
EVERY_S = 0.1
EVENTS = 20
COLUMNS = ("livez p50", "p99", "max", "batch p99", "ping p99", "live p99", "RSS MB", "disk MB", "log kB", "lost")
processes = multiprocessing.get_context("spawn")


def main() -> int:
    options = _options()
    cases = {"none": [], **{name: [name] for name in ATTACKS}, "all": list(ATTACKS)}
    print(f"{'milliseconds':12}" + "".join(f"{column:>10}" for column in COLUMNS), flush=True)
    lost = 0
    for case, attacks in cases.items():
        if options.only in (None, case):
            row, losses = _measure(attacks, options.seconds)
            print(f"{case:12}{row}", *losses, sep="\n    ", flush=True)
            lost += len(losses)
    return 1 if lost else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["none", *ATTACKS, "all"])
    parser.add_argument("--seconds", type=float, default=20)
    return parser.parse_args()


def _token(sub: str, **claims) -> str:
    return make_token(SECRET, {"sub": sub, "exp": int(time.time()) + 3600, **claims})


def _measure(attacks: list[str], seconds: float) -> tuple[str, list[str]]:
    keys = f"shop:{OWN_KEY},web:{PUBLIC_KEY}"
    with Switchyard("gunicorn", JWT_SECRET=SECRET, WRITE_KEYS=keys) as server:
        victim = Victim(server.port, PUBLIC_KEY, _token("mallory", topics={"pub": ["mine:*"], "sub": ["mine:*"]}))
        client = OrdinaryClient(server)
        client.connect()
        attackers = [processes.Process(target=_attack, args=(name, victim), daemon=True) for name in attacks]
        for attacker in attackers:
            attacker.start()
        peak = client.run(seconds)
        for attacker in attackers:
            attacker.kill()
            attacker.join()
        losses = client.losses()
        sizes = [peak / 1e6, _folder_bytes(server.data_dir) / 1e6, len(server.log) / 1e3]
    figures = [*client.figures(), *sizes]
    return "".join(f"{figure:>10.1f}" for figure in figures) + f"{len(losses):>10}", losses


def _attack(name: str, victim: Victim) -> None:
    """Run an attack at a low priority, so that the server does not lose its core to the attacker."""
    os.nice(15)
    ATTACKS[name](victim)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass
class OrdinaryClient:
    """A client with the usual work of a front end, ten times a second, from its own address. A service publishes to its topic."""

    server: Switchyard
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ("livez", "batch", "ping", "live")})
    failures: list[str] = field(default_factory=list)
    stored: int = 0
    sent: list[int] = field(default_factory=list)
    received: dict[int, float] = field(default_factory=dict)

    def connect(self) -> None:
        self._live = socketio.Client(reconnection_delay=0.1, http_session=_session("127.0.0.7"))
        self._live.on("message", self._on_message, namespace="/realtime")
        self._live.connect(self.server.url, auth={"token": _token("anna")}, namespaces=["/realtime"], transports=["websocket"])
        self._call(type="subscribe", topic=TOPIC, ack=False)
        self._publisher = _session("127.0.0.8", Authorization=f"Bearer {_token('backend', role='service')}")
        self._sender = _session("127.0.0.7", **{"X-Write-Key": OWN_KEY})
        self._first = self._publish("first", QUIET_TOPIC)

    def run(self, seconds: float) -> int:
        """Do the work for `seconds`, and return the server's largest resident memory in bytes."""
        deadline = time.monotonic() + seconds
        work = [self._request_livez, self._request_livez, self._send_batch, self._ping, self._publish_one]
        threads = [threading.Thread(target=self._repeat, args=(step, deadline)) for step in work]
        for thread in threads:
            thread.start()
        peak, tree = 0, psutil.Process(self.server.process.pid)
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max([peak, *(child.memory_info().rss for child in tree.children())])
        return peak

    def figures(self) -> list[float]:
        ms = {name: [each * 1000 for each in values] or [float("nan")] for name, values in self.times.items()}
        livez = [percentile(ms["livez"], 50), percentile(ms["livez"], 99), max(ms["livez"])]
        return [*livez, *(percentile(ms[name], 99) for name in ("batch", "ping", "live"))]

    def losses(self) -> list[str]:
        """Wait for messages and counts still on their way, and return a sentence for each loss."""
        time.sleep(3)
        found = [f"{name}: {count} times" for name, count in _counted(self.failures).items()]
        admin = {"Authorization": f"Bearer {_token('root', role='admin')}"}
        stats = requests.get(f"{self.server.url}/api/telemetry/stats?app=shop", headers=admin, timeout=30).json()
        counted = stats["totals"]["count"]
        if counted != self.stored:
            found.append(f"statistics: {counted} of {self.stored} events")
        if missing := [seq for seq in self.sent if seq not in self.received]:
            found.append(f"live messages: {len(missing)} of {len(self.sent)} did not arrive")
        again = self._publish("first", QUIET_TOPIC)
        if not again.get("duplicate") or again["seq"] != self._first["seq"]:
            found.append("the id of the quiet topic's message was forgotten")
        resumed = self._call(type="subscribe", topic=QUIET_TOPIC, ack=False, since=0, epoch=self._first["epoch"])
        if not resumed.get("recovered"):
            found.append(f"the history of {QUIET_TOPIC} was lost: {resumed}")
        self._live.shutdown()
        return found

    def _repeat(self, step: Callable[[], None], deadline: float) -> None:
        while time.monotonic() < deadline:
            try:
                step()
            except Exception as error:
                self.failures.append(f"{step.__name__.strip('_')}: {type(error).__name__} {str(error)[:80]}")
            time.sleep(EVERY_S)

    def _request_livez(self) -> None:
        """Use a new connection, as a load balancer does."""
        started = time.perf_counter()
        requests.get(f"{self.server.url}/livez", timeout=30).raise_for_status()
        self.times["livez"].append(time.perf_counter() - started)

    def _send_batch(self) -> None:
        events = [{"type": "event", "name": "click", "eventId": f"{time.time_ns()}-{each}"} for each in range(EVENTS)]
        started = time.perf_counter()
        answer = self._sender.post(f"{self.server.url}/api/telemetry/batch", json={"app": "shop", "events": events}, timeout=30)
        answer.raise_for_status()
        self.times["batch"].append(time.perf_counter() - started)
        self.stored += answer.json()["saved"]

    def _ping(self) -> None:
        started = time.perf_counter()
        self._live.call("ping", namespace="/realtime", timeout=30)
        self.times["ping"].append(time.perf_counter() - started)

    def _publish_one(self) -> None:
        started = time.perf_counter()
        seq = self._publish(f"m{time.time_ns()}")["seq"]
        self.sent.append(seq)
        deadline = time.monotonic() + 10
        while seq not in self.received and time.monotonic() < deadline:
            time.sleep(0.001)
        self.times["live"].append(self.received.get(seq, time.perf_counter()) - started)

    def _publish(self, id: str, topic: str = TOPIC) -> dict:
        body = {"topic": topic, "payload": {"text": "hello"}, "id": id}
        answer = self._publisher.post(f"{self.server.url}/api/realtime/publish", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def _call(self, **frame) -> dict:
        return self._live.call("message", frame, namespace="/realtime", timeout=30)

    def _on_message(self, frame: dict) -> None:
        if frame["type"] == "event" and frame["topic"] == TOPIC:
            self.received.setdefault(frame["seq"], time.perf_counter())
        elif frame["type"] == "error":
            self.failures.append(f"error frame {frame.get('code')}")


def _counted(failures: list[str]) -> dict[str, int]:
    return {failure: failures.count(failure) for failure in dict.fromkeys(failures)}


class _FromAddress(HTTPAdapter):
    """Sends requests from one loopback address."""

    def __init__(self, address: str):
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self._address, 0), **options)


def _session(address: str, **headers: str) -> requests.Session:
    session = requests.Session()
    session.mount("http://", _FromAddress(address))
    session.headers.update(headers)
    return session


if __name__ == "__main__":
    sys.exit(main())
