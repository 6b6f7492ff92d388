"""CORS by flask-cors. No cookies are used anywhere, so credentials stay off and `*` is a safe default."""

import re
from collections.abc import Iterable

from flask import Flask
from flask_cors import CORS

from app.identity import origins
from app.settings import Settings

ALLOWED_HEADERS = ["Authorization", "Content-Type", "Content-Encoding", "If-Match", "If-None-Match", "X-Request-Id", "X-Write-Key"]
# What tracing tools add to every request of a page, as their names are documented. A preflight that does not allow one of them
# stops the request, and the page learns nothing of why.
TRACING_HEADERS = [
    "traceparent", "tracestate", "baggage",  # W3C: OpenTelemetry, Sentry, Grafana Faro
    "sentry-trace", "x-datadog-*", "b3", "x-b3-*", "uber-trace-id", "uberctx-*", "newrelic", "elastic-apm-traceparent", "x-instana-*",
    "request-id", "request-context", "correlation-context",  # Application Insights
    "x-amzn-trace-id", "x-cloud-trace-context", "x-dtpc", "x-dtreferer", "x-honeycomb-trace", "x-correlation-id", "x-requested-with",
]  # fmt: skip
EXPOSED_HEADERS = ["ETag", "Retry-After", "X-Request-Id"]
EXPOSED = ("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS))
VARY = ("Vary", "Origin")


def init_cors(app: Flask, settings: Settings) -> None:
    CORS(
        app,
        origins=[origins.compiled(pattern) for pattern in settings.cors_origins] if "*" not in settings.cors_origins else "*",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_matching([*ALLOWED_HEADERS, *TRACING_HEADERS, *settings.cors_allow_headers]),
        expose_headers=EXPOSED_HEADERS,
        send_wildcard=True,  # the same answer for everybody where everybody may ask, so that caches need not keep origins apart
        max_age=86_400,
    )
    if "*" not in settings.cors_origins:
        app.after_request(_vary)


def _matching(names: Iterable[str]) -> re.Pattern[str]:
    """Of names, or beginnings of names with a `*` behind them, in any case."""
    return re.compile("(?:" + "|".join(re.escape(name).replace(r"\*", "[^,\\s]*") for name in names) + r")\Z", re.IGNORECASE)


def _vary(response):
    """Also where no Origin came: a cache would give that answer, without a permission, to a page that may ask."""
    response.vary.add("Origin")
    return response


def headers_for(settings: Settings, origin: str | None) -> list[tuple[str, str]] | None:
    """What flask-cors would add to a plain answer; None where it has to be asked."""
    if "*" in settings.cors_origins:
        return [("Access-Control-Allow-Origin", "*"), EXPOSED]
    if origin is None:
        return [VARY]
    if origins.allows(settings.cors_origins, origin):
        return [("Access-Control-Allow-Origin", origin), EXPOSED, VARY]
    return None
