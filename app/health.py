"""What is wrong, if anything: every dependency asked, side by side, and not more often than once a second.

A dependency is a callable that answers within the driver's timeout with `{"state": "up" | "degraded" | "down" | "off", …}`
or raises; its latency is measured here. Answers are kept for a second, so that nobody can load a database through them.
"""

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.lock import Semaphore

from app.clock import Clock
from app.storage.mongo_errors import reason_of

FRESH_MS = 1000
Check = Callable[[], dict[str, Any]]


class Health:
    """`checks` maps a name to a dependency; `is_ready` is asked with their answers."""

    def __init__(self, checks: dict[str, Check], is_ready: Callable[[dict], bool], uptime: Clock, metrics):
        self._checks = checks
        self._is_ready = is_ready
        self._uptime = uptime
        self._metrics = metrics
        self._last: dict[str, dict[str, Any]] = {}
        self._asked_at = -FRESH_MS
        self._lock = Semaphore(1)

    def report(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        """(ready, {name: {state, latencyMs, …details}}), the checks side by side."""
        with self._lock:  # who comes while the checks run waits for them
            if not 0 <= self._uptime() - self._asked_at < FRESH_MS:
                self._ask_all()
        return self._is_ready(self._last), self._last

    def _ask_all(self) -> None:
        asked = {name: gevent.spawn(_ask, check) for name, check in self._checks.items()}
        gevent.joinall(asked.values())
        self._last = {name: greenlet.value for name, greenlet in asked.items()}
        self._asked_at = self._uptime()
        for name, answer in self._last.items():
            self._metrics.dependency_up.labels(name).set(answer["state"] != "down")


def _ask(check: Check) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        answer = check()
    except Exception as error:  # whatever a driver throws, the answer is the same: it is down, and this is why
        answer = {"state": "down", "error": reason_of(error)}
    return {**answer, "latencyMs": round((time.perf_counter() - started) * 1000, 1)}
