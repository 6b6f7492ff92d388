"""`X-Request-Id` on every answer and every log line: the caller's own where it is a sane one, else a new one."""

import re
import time
from uuid import uuid4

import structlog
from flask import Flask, g, request

from app.http.context import parts
from app.logs import get_logger

log = get_logger(__name__)
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def init_request_ids(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if SANE_ID.fullmatch(given) else uuid4().hex
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response):
    response.headers["X-Request-Id"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    route = request.url_rule.rule if request.url_rule else "unknown"
    seconds = time.perf_counter() - g.started
    metrics = parts().metrics
    metrics.http_requests_total.labels(request.method, route, response.status_code).inc()
    metrics.http_request_seconds.labels(route).observe(seconds)
    if response.status_code >= 400:
        log.info(
            "request_refused", method=request.method, route=route, status=response.status_code, error=g.get("error_code"),
            ms=round(seconds * 1000, 1),
        )  # fmt: skip
    return response
