"""A shorter way through the house for the few routes that carry nearly all the load.

It does what Flask's way does for a request where nothing is unusual (the same gatekeeper, the same counter of the rate
limit, the same metrics, headers and error shape) and hands everything else over to Flask before having touched it. So
Flask stays the authority, and this only has to know when to stand back: it returns None.
"""

import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import orjson
import structlog

from app.errors import ApiError, error_headers, forget_where
from app.http.body import inflate
from app.http.cors import headers_for
from app.http.rate_limits import ALREADY_COUNTED, rate_limit_key
from app.http.request_id import Accounts, request_id_for
from app.identity.identity import Identity
from app.serving.sender_check import write_key_of
from app.serving.unread_body import BODY_NOT_READ

JSON_TYPES = {"application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8",
              "text/plain", "text/plain;charset=UTF-8", "text/plain; charset=utf-8", ""}  # fmt: skip
STATUS_LINES = {200: "200 OK", 400: "400 BAD REQUEST", 413: "413 REQUEST ENTITY TOO LARGE",
                429: "429 TOO MANY REQUESTS", 503: "503 SERVICE UNAVAILABLE"}  # fmt: skip
Save = Callable[..., dict[str, Any]]


class FastLane:
    """WSGI middleware. `routes` maps a path to what is called with the body of a POST to it, the `identity` of its sender, and `who`,
    the name under which that one's requests are counted; its answer is sent as JSON."""

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
        """None where Flask has to answer."""
        started = time.perf_counter()
        cors = headers_for(self._settings, environ.get("HTTP_ORIGIN"))
        if cors is None or not self._is_ordinary(environ):
            return None
        identity = self._caller(environ)
        if identity is None:
            return None
        who = rate_limit_key(identity, environ["REMOTE_ADDR"])
        if not self._hit(who):
            return None
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        request_id = _begin(environ, identity)
        try:
            answer, error = self._saved(partial(save, identity=identity, who=who), body, environ)
        except Exception:
            environ["wsgi.input"] = BytesIO(body)  # Flask meets the same surprise, and knows how to say so
            environ[ALREADY_COUNTED] = True
            return None
        text, status = orjson.dumps(answer), 200 if error is None else error.status
        start_response(STATUS_LINES.get(status) or f"{status} ERROR", _headers(text, request_id, cors, error))
        path = environ["PATH_INFO"]
        self._accounts[path].close(status, time.perf_counter() - started, path, error)
        return [text]

    def _is_ordinary(self, environ) -> bool:
        length = environ.get("CONTENT_LENGTH") or ""
        return (
            environ.get("CONTENT_TYPE", "") in JSON_TYPES
            and environ.get("HTTP_CONTENT_ENCODING") in (None, "gzip")
            and length.isdigit()
            and int(length) <= self._settings.http_max_body_bytes
            and BODY_NOT_READ not in environ
        )

    def _saved(self, save: Callable[[bytes], dict[str, Any]], body: bytes, environ) -> tuple[dict[str, Any], ApiError | None]:
        """The answer, and what is wrong where something is."""
        try:
            if "HTTP_CONTENT_ENCODING" in environ:
                body = inflate(body, self._settings.http_max_body_bytes)
            return save(body), None
        except ApiError as error:
            return {"ok": False, "error": error.to_dict()}, forget_where(error)

    def _caller(self, environ) -> Identity | None:
        """None where the credential does not hold or none was given."""
        try:
            return self._gatekeeper.from_headers(environ.get("HTTP_AUTHORIZATION"), write_key_of(environ))
        except ApiError:
            return None


def _begin(environ, identity: Identity) -> str:
    """The request's id, bound to every line of the log from here on."""
    request_id = request_id_for(environ.get("HTTP_X_REQUEST_ID", ""))
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    if identity.user_id is not None:
        structlog.contextvars.bind_contextvars(user=identity.user_id)
    return request_id


def _headers(text: bytes, request_id: str, cors: list[tuple[str, str]], error: ApiError | None) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(text))),
        ("X-Request-Id", request_id),
        ("X-Content-Type-Options", "nosniff"),
        *cors,
        *(() if error is None else error_headers(error)),
    ]
