"""Measures what a flooding publisher costs another client: the round trip of its pings while others publish.

    .venv/bin/python -m bench.realtime_flood                 every kind of flood, a few seconds each
    .venv/bin/python -m bench.realtime_flood --only small

The server, the flooder and the pinging client are processes of their own. A flooder that the server closes reconnects at once.
"""

import argparse
import contextlib
import multiprocessing
import sys
import threading
import time
from dataclasses import dataclass

import websocket

from app.identity.tokens import make_token
from bench import cpu
from bench.figures import percentile
from tests.servers.switchyard import Switchyard

SECRET = "a secret of this measurement, long enough"
PING_EVERY_S = 0.025  # within the rate of a connection
FLOODER_PAUSE_S = 0.02  # between two connections; a handshake over a network is no faster
processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Flood:
    """A case: `connections` publishers, each on its own topic, at `per_second` messages or, with None, as fast as they can."""

    name: str
    title: str
    connections: int
    payload_bytes: int
    per_second: int | None = None


FLOODS = (
    Flood("none", "none", 0, 0),
    Flood("small", "one, 200 bytes, as fast as it can", 1, 200),
    Flood("large", "one, 60 kB, as fast as it can", 1, 60_000),
    Flood("crowd", "ten, 200 bytes, as fast as they can", 10, 200),
    Flood("allowed", "twenty within their rate, 200 bytes", 20, 200, per_second=45),
    Flood("allowed-large", "four within their rate, 60 kB", 4, 60_000, per_second=45),
)


def main() -> int:
    options = _options()
    with Switchyard("gunicorn", JWT_SECRET=SECRET, RATE_LIMIT_HTTP="100000/second", LOG_LEVEL="warning") as server:
        print(f"{'flooding clients':38}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'messages/s':>12}{'refused/s':>11}{'CPU':>6}", flush=True)
        for flood in FLOODS:
            if options.only in (None, flood.name):
                print(_measure(server, flood, options.seconds), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.realtime_flood", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[flood.name for flood in FLOODS])
    parser.add_argument("--seconds", type=float, default=6)
    return parser.parse_args()


def _measure(server: Switchyard, flood: Flood, seconds: float) -> str:
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    flooder = processes.Process(target=_flood, args=(url, flood), daemon=True)
    times = processes.Queue()
    pinger = processes.Process(target=_ping, args=(url, seconds, times), daemon=True)
    if flood.connections:
        flooder.start()
        time.sleep(1.0)
    before, cpu_before, started = _counts(server), cpu.consumed_s(server.process.pid), time.monotonic()
    pinger.start()
    ms = [each * 1000 for each in times.get()]
    took = time.monotonic() - started
    cpu_share = (cpu.consumed_s(server.process.pid) - cpu_before) / took
    published, refused = ((after - first) / took for after, first in zip(_counts(server), before, strict=True))
    pinger.join()
    if flood.connections:
        flooder.kill()
        flooder.join()
    figures = f"{percentile(ms, 50):>8.1f}{percentile(ms, 99):>8.1f}{max(ms):>8.1f}{published:>12,.0f}{refused:>11,.0f}{cpu_share:>6.0%}"
    return f"{flood.title:38}{figures}"


def _counts(server: Switchyard) -> tuple[float, float]:
    """Return (messages published, frames refused) so far."""
    lines = server.metrics().text.splitlines()
    names = ("realtime_published_total ", 'realtime_errors_total{code="rate_limited"} ')
    published, refused = (sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)) for name in names)
    return published, refused


def _connect(url: str) -> websocket.WebSocket:
    connection = websocket.create_connection(url, timeout=10)
    connection.recv()
    connection.send(f'40/realtime,{{"token":"{make_token(SECRET, {"sub": "u1", "role": "admin", "exp": int(time.time()) + 3600})}"}}')
    connection.recv()
    return connection


def _ping(url: str, seconds: float, times) -> None:
    connection = _connect(url)
    took = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.perf_counter()
        connection.send('42/realtime,1["ping"]')
        while not connection.recv().startswith("43/realtime,1["):
            pass
        took.append(time.perf_counter() - started)
        time.sleep(PING_EVERY_S)
    times.put(took)


def _flood(url: str, flood: Flood) -> None:
    for number in range(1, flood.connections):
        threading.Thread(target=_flood_on_one, args=(url, flood, f"flood:{number}"), daemon=True).start()
    _flood_on_one(url, flood, "flood:0")


def _flood_on_one(url: str, flood: Flood, topic: str) -> None:
    """Publish on one topic. At full speed it repeats the same hundred frames, so that building them takes no time."""
    packet = f'42/realtime,["message",{{"type":"publish","topic":"{topic}","id":"%d","payload":"{"x" * flood.payload_bytes}"}}]'
    while True:
        frames = [_frame(packet % (time.time_ns() + number)) for number in range(100 if flood.payload_bytes < 1000 else 8)]
        with contextlib.suppress(Exception):
            connection = _connect(url)
            connection.sock.settimeout(None)
            if flood.per_second is None:
                while True:
                    connection.sock.sendall(b"".join(frames))
            _publish_at_a_rate(connection, packet, flood.per_second)
        time.sleep(FLOODER_PAUSE_S)


def _publish_at_a_rate(connection: websocket.WebSocket, packet: str, per_second: int) -> None:
    while True:
        connection.sock.sendall(_frame(packet % time.time_ns()))
        time.sleep(1 / per_second)


def _frame(packet: str) -> bytes:
    return websocket.ABNF.create_frame(packet, websocket.ABNF.OPCODE_TEXT).format()


if __name__ == "__main__":
    sys.exit(main())
