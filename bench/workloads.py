"""The requests that are sent: batches as an SDK makes them. Every event has an `eventId` of its own.

A body is a template with one gap per event. Filling the gaps with a counter takes a microsecond, so the load generator costs
little beside the server. Fifty events are about eight kilobytes.
"""

import itertools
import json
import time
import zlib
from dataclasses import dataclass
from random import Random
from uuid import uuid4

WRITE_KEY = "wk_bench_4f9a1c02"
MAX_BODY_BYTES = 512_000
GAP = "%number%"
ENVELOPE = {
    "app": "shop-web", "release": "2026.11.3", "env": "production", "userId": "u-48213", "sessionId": "5f0c7a52-9d1e-4b7a",
}  # fmt: skip


def _kinds(chance: Random) -> list[dict]:
    """Return one event of each of five kinds; one of them has an object inside its props."""
    number = chance.randrange(10_000)
    return [
        {"type": "page", "name": "/checkout/payment", "props": {"referrer": f"/products/{number}", "title": "Payment"}},
        {"type": "event", "name": "button_click", "props": {"target": {"id": f"pay-{number}", "tag": "button"}}},
        {"type": "error", "name": "TypeError", "props": {"message": "cart.total is undefined", "line": number, "column": 17}},
        {"type": "api", "name": f"GET /api/carts/{number}", "props": {"status": 200, "ms": number / 100, "ok": True}},
        {"type": "perf", "name": "web-vitals.lcp", "props": {"value": number / 10, "rating": "good", "path": "/checkout"}},
    ]


@dataclass(frozen=True)
class Workload:
    """A batch of `events` events, of which `bad` have an unknown type."""

    events: int
    bad: int = 0
    gzip: bool = False

    def requests(self) -> "Requests":
        return Requests(self)


class Requests:
    """Complete HTTP requests, each with its own eventIds. The times in them are the time when the template was made."""

    _numbers = itertools.count()
    _run = uuid4().hex[:8]

    def __init__(self, workload: Workload):
        self._pieces = _body(workload).split(GAP.encode())
        self._gzip = workload.gzip
        encoding = "Content-Encoding: gzip\r\n" if workload.gzip else ""
        self._head = (
            "POST /api/telemetry/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nX-Write-Key: {WRITE_KEY}\r\n{encoding}Content-Length: "
        ).encode()

    def make(self) -> bytes:
        body = f"{self._run}-{next(self._numbers):09d}".encode().join(self._pieces)
        if self._gzip:
            body = _gzip(body)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


def body_bytes(workload: Workload) -> int:
    """Return the length of one body as it is sent, compressed or not."""
    return len(workload.requests().make().partition(b"\r\n\r\n")[2])


def _body(workload: Workload) -> bytes:
    now, chance = int(time.time() * 1000), Random(workload.events)
    events = [
        {**_kinds(chance)[place % 5], "ts": now - 20 * (workload.events - place), "eventId": f"{GAP}-{place:03d}"}
        for place in range(workload.events)
    ]
    for place in range(workload.bad):
        events[place * len(events) // workload.bad + len(events) // (2 * workload.bad)]["type"] = "unheard-of"
    body = json.dumps({**ENVELOPE, "sentAt": now, "events": events}, separators=(",", ":")).encode()
    assert len(body) <= MAX_BODY_BYTES
    return body


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(level=6, wbits=31)
    return packer.compress(body) + packer.flush()
