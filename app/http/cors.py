"""CORS by flask-cors. No cookies are used anywhere, so credentials stay off and `*` is a safe default."""

from flask import Flask
from flask_cors import CORS

from app import origins
from app.settings import Settings

ALLOWED_HEADERS = ["Authorization", "Content-Type", "Content-Encoding", "If-Match", "If-None-Match", "X-Request-Id", "X-Write-Key"]
EXPOSED_HEADERS = ["ETag", "Retry-After", "X-Request-Id"]
EXPOSED = ("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS))


def init_cors(app: Flask, settings: Settings) -> None:
    CORS(
        app,
        origins=[origins.compiled(pattern) for pattern in settings.cors_origins] if "*" not in settings.cors_origins else "*",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        send_wildcard=True,  # the same answer for everybody where everybody may ask, so that caches need not keep origins apart
        max_age=86_400,
    )


def headers_for(settings: Settings, origin: str | None) -> list[tuple[str, str]] | None:
    """What flask-cors would add to a plain answer; None where it has to be asked."""
    if "*" in settings.cors_origins:
        return [("Access-Control-Allow-Origin", "*"), EXPOSED]
    if origin is None:
        return []
    if origins.allows(settings.cors_origins, origin):
        return [("Access-Control-Allow-Origin", origin), EXPOSED, ("Vary", "Origin")]
    return None
