"""`X-Request-Id` on every answer and every log line: the caller's own where it is a sane one, else a new one."""

import re
import time
from random import getrandbits

import structlog
from flask import Flask, g, request

from app.errors import ApiError
from app.http.context import parts
from app.logs import get_logger
from app.logs.masking import mask
from app.logs.sampling import SampledLog
from app.metrics import Metrics

log = get_logger(__name__)
sampled = SampledLog(log)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may invent others without end
MAX_PATH = 200
REQUEST_ID = "switchyard.request_id"  # in the environ of a request that does not come through Flask
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_request_id() -> str:
    """Unlike any other, and no secret: so the system need not be asked for it. A forked process begins anew."""
    return f"{getrandbits(128):032x}"


def request_id_for(given: str) -> str:
    """The caller's own, where it is a sane one."""
    return given if SANE_ID.fullmatch(given) else new_request_id()


def init_request_ids(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.request_id = request_id_for(request.headers.get("X-Request-Id", ""))
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response):
    response.headers["X-Request-Id"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    route = request.url_rule.rule if request.url_rule else "unknown"
    method = request.method if request.method in METHODS else "other"
    seconds = time.perf_counter() - g.started
    Accounts(parts().metrics, method, route).close(response.status_code, seconds, request.path, g.get("error"))
    return response


class Accounts:
    """What is written down about the answers of one route."""

    def __init__(self, metrics: Metrics, method: str, route: str):
        self._method = method
        self._route = route
        self._answers = metrics.http_requests_total
        self._seconds = metrics.http_request_seconds.labels(route)
        self._good = metrics.http_requests_total.labels(method, route, 200)

    def close(self, status: int, seconds: float, path: str, error: ApiError | None) -> None:
        (self._good if status == 200 else self._answers.labels(self._method, self._route, status)).inc()
        self._seconds.observe(seconds)
        if status >= 400:
            self._tell(status, seconds, path, error)

    def _tell(self, status: int, seconds: float, path: str, error: ApiError | None) -> None:
        """With what an operator asks next: which address, if no route has it, and what was wrong. Anybody may cause it, so of one
        route and status there are a few lines and then a count; what the rate limit refuses is in http_rate_limited_total."""
        suppressed = sampled.admits(f"{self._route} {status}")
        if suppressed is None:
            return
        shown = mask(path)[:MAX_PATH]  # in this order: half a write key would not be recognised
        place = {"method": self._method, "route": self._route, "path": shown}
        wrong = {"error": error.code, "reason": error.summary} if error else {}
        tell = log.debug if status == 429 else log.info
        more = {"suppressed": suppressed} if suppressed else {}
        tell("request_refused", **place, status=status, **wrong, ms=round(seconds * 1000, 1), **more)
