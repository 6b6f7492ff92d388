"""CORS by flask-cors. No cookies are used anywhere, so credentials stay off and `*` is a safe default."""

from flask import Flask
from flask_cors import CORS

from app import origins
from app.settings import Settings

ALLOWED_HEADERS = ["Authorization", "Content-Type", "Content-Encoding", "If-Match", "If-None-Match", "X-Request-Id", "X-Write-Key"]
EXPOSED_HEADERS = ["ETag", "Retry-After", "X-Request-Id"]


def init_cors(app: Flask, settings: Settings) -> None:
    CORS(
        app,
        origins=[origins.compiled(pattern) for pattern in settings.cors_origins] if "*" not in settings.cors_origins else "*",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=86_400,
    )
