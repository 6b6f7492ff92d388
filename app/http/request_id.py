"""`X-Request-Id` on every answer and every log line: the caller's own where it is a sane one, else a new one."""

import os
import re
import time

import structlog
from flask import Flask, g, request

from app.http.context import parts
from app.logs import get_logger
from app.metrics import Metrics

log = get_logger(__name__)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may invent others without end
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_request_id() -> str:
    return os.urandom(16).hex()


def init_request_ids(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if SANE_ID.fullmatch(given) else new_request_id()
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response):
    response.headers["X-Request-Id"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    route = request.url_rule.rule if request.url_rule else "unknown"
    method = request.method if request.method in METHODS else "other"
    Accounts(parts().metrics, method, route).close(response.status_code, time.perf_counter() - g.started, g.get("error_code"))
    return response


class Accounts:
    """What is written down about the answers of one route."""

    def __init__(self, metrics: Metrics, method: str, route: str):
        self._method = method
        self._route = route
        self._answers = metrics.http_requests_total
        self._seconds = metrics.http_request_seconds.labels(route)
        self._good = metrics.http_requests_total.labels(method, route, 200)

    def close(self, status: int, seconds: float, error_code: str | None) -> None:
        (self._good if status == 200 else self._answers.labels(self._method, self._route, status)).inc()
        self._seconds.observe(seconds)
        if status >= 400:
            ms = round(seconds * 1000, 1)
            tell = log.debug if status == 429 else log.info  # a flood is in http_rate_limited_total, and need not fill the log
            tell("request_refused", method=self._method, route=self._route, status=status, error=error_code, ms=ms)
