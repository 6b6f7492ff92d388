"""A shorter way through the house for the few routes that carry nearly all the load.

It does what Flask's way does for a request where nothing is unusual (the same gatekeeper, the same counter of the rate
limit, the same metrics, headers and error shape) and hands everything else over to Flask before having touched it. So
Flask stays the authority, and this only has to know when to stand back: it returns None.
"""

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

import orjson
import structlog

from app.errors import ApiError
from app.http.body import inflate
from app.http.cors import headers_for
from app.http.errors import error_headers
from app.http.limits import ALREADY_COUNTED, bucket_of
from app.http.request_id import SANE_ID, Accounts, new_request_id
from app.identity import Identity

JSON_TYPES = {"application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8",
              "text/plain", "text/plain;charset=UTF-8", "text/plain; charset=utf-8", ""}  # fmt: skip
STATUS_LINES = {200: "200 OK", 400: "400 BAD REQUEST", 413: "413 REQUEST ENTITY TOO LARGE", 503: "503 SERVICE UNAVAILABLE"}
Save = Callable[[bytes], dict[str, Any]]


class FastLane:
    """WSGI middleware. `routes` maps a path to what is called with the body of a POST to it; its answer is sent as JSON."""

    def __init__(self, application, routes: dict[str, Save], parts, hit: Callable[[str], bool]):
        self._application = application
        self._routes = routes
        self._gatekeeper = parts.gatekeeper
        self._settings = parts.settings
        self._hit = hit
        self._accounts = {path: Accounts(parts.metrics, "POST", path) for path in routes}

    def __call__(self, environ, start_response):
        save = self._routes.get(environ["PATH_INFO"])
        if save is not None and environ["REQUEST_METHOD"] == "POST":
            answer = self._answer(environ, start_response, save)
            if answer is not None:
                return answer
        return self._application(environ, start_response)

    def _answer(self, environ, start_response, save: Save):
        started = time.perf_counter()
        cors = headers_for(self._settings, environ.get("HTTP_ORIGIN"))
        length = environ.get("CONTENT_LENGTH") or ""
        encoding = environ.get("HTTP_CONTENT_ENCODING")
        if (
            cors is None
            or environ.get("CONTENT_TYPE", "") not in JSON_TYPES
            or encoding not in (None, "gzip")
            or not length.isdigit()
            or int(length) > self._settings.http_max_body_bytes
        ):
            return None
        identity = self._caller(environ)
        if identity is None or not self._hit(bucket_of(identity, environ["REMOTE_ADDR"])):
            return None
        body = environ["wsgi.input"].read(int(length))
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not SANE_ID.fullmatch(request_id):
            request_id = new_request_id()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if identity.user_id is not None:
            structlog.contextvars.bind_contextvars(user=identity.user_id)
        code, status, headers = None, 200, ()
        try:
            answer = save(body if encoding is None else inflate(body, self._settings.http_max_body_bytes))
        except ApiError as error:
            code, status, headers = error.code, error.status, error_headers(error)
            answer = {"ok": False, "error": error.to_dict()}
        except Exception:
            environ["wsgi.input"] = BytesIO(body)  # Flask meets the same surprise, and knows how to say so
            environ[ALREADY_COUNTED] = True
            return None
        text = orjson.dumps(answer)
        start_response(
            STATUS_LINES.get(status) or f"{status} ERROR",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(text))),
                ("X-Request-Id", request_id),
                ("X-Content-Type-Options", "nosniff"),
                *cors,
                *headers,
            ],
        )
        self._accounts[environ["PATH_INFO"]].close(status, time.perf_counter() - started, code)
        return [text]

    def _caller(self, environ) -> Identity | None:
        """None where the credential does not hold or none was given."""
        write_key = environ.get("HTTP_X_WRITE_KEY")
        if write_key is None and environ["QUERY_STRING"]:
            write_key = parse_qs(environ["QUERY_STRING"]).get("writeKey", [None])[0]
        try:
            return self._gatekeeper.from_headers(environ.get("HTTP_AUTHORIZATION"), write_key)
        except ApiError:
            return None
