"""Engine.IO as it is met over HTTP: its answers get what every answer of the house has, and nobody opens sessions without end.

A handshake asks for no token and costs a session, so each address may have so many at once and so many a second; the guard
then closes those that nobody joins with.
"""

from urllib.parse import parse_qs

import orjson

from app.errors import HTTP_STATUS_TO_CODE, ApiError, error_headers
from app.http.limits import bucket_of
from app.http.request_id import REQUEST_ID, request_id_for
from app.realtime.buckets import MemoryBuckets, Rate

ENGINE_IO_PATH = "/socket.io/"


class Door:
    """WSGI middleware. `cors` gives the headers for an origin, for the answers that Engine.IO does not make itself."""

    def __init__(self, application, handshake_rate: Rate, clock, metrics, cors):
        self._application = application
        self._handshakes = MemoryBuckets(handshake_rate)
        self._clock = clock
        self._metrics = metrics
        self._cors = cors

    def __call__(self, environ, start_response):
        if not environ["PATH_INFO"].startswith(ENGINE_IO_PATH):
            return self._application(environ, start_response)
        environ[REQUEST_ID] = request_id_for(environ.get("HTTP_X_REQUEST_ID", ""))
        if _is_handshake(environ) and (wait_ms := self._handshakes.take(bucket_of(None, environ["REMOTE_ADDR"]), self._clock())):
            self._metrics.http_rate_limited_total.inc()
            error = ApiError("rate_limited", "Too many new connections from this address; slow down.", retry_after_ms=wait_ms)
            return _refuse(error, "429 Too Many Requests", self._cors(environ.get("HTTP_ORIGIN")), environ, start_response)
        return self._pass(environ, start_response)

    def _pass(self, environ, start_response):
        said = []
        result = self._application(environ, lambda *start: said.append(start))
        if not said:
            return result  # it was a websocket
        status, headers, *_ = said[0]
        if status[:1] != "4":
            start_response(status, [*headers, ("X-Request-Id", environ[REQUEST_ID])])
            return result
        error = ApiError(HTTP_STATUS_TO_CODE.get(int(status[:3]), "bad_request"), _sentence(b"".join(result)))
        return _refuse(error, status, [header for header in headers if header[0] != "Content-Type"], environ, start_response)


def _is_handshake(environ) -> bool:
    return environ["REQUEST_METHOD"] == "GET" and "sid" not in parse_qs(environ.get("QUERY_STRING", ""))


def _sentence(body: bytes) -> str | None:
    """Engine.IO says what is wrong as a JSON string; None leaves it to the catalogue."""
    try:
        sentence = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return sentence if isinstance(sentence, str) else None


def _refuse(error: ApiError, status: str, headers, environ, start_response):
    """In the catalogue's shape."""
    own = [("Content-Type", "application/json"), ("X-Request-Id", environ[REQUEST_ID])]
    start_response(status, [*own, *headers, *error_headers(error)])
    return [orjson.dumps({"ok": False, "error": error.to_dict()})]
