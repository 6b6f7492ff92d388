"""Engine.IO over HTTP: gives its answers the headers and the error shape of every answer, and each address a share of requests.

A handshake needs no token and creates a session, so handshakes have a rate per address; the guard closes sessions that join no
namespace. All other requests of an address have a rate of their own. A websocket or a poll occupies its connection, so together
they may occupy only a part of a worker's connections. The others are reserved for short requests.
"""

import math
from http.client import responses
from urllib.parse import parse_qs

import orjson

from app.clock import Clock
from app.errors import HTTP_STATUS_TO_CODE, ApiError, error_headers
from app.http.rate_limits import rate_limit_key
from app.http.request_id import REQUEST_ID, request_id_for
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.buckets import MemoryBuckets, Rate
from app.serving.server import MAX_SESSIONS
from app.serving.websocket import has_opened

log = SampledLog(get_logger(__name__))

ENGINE_IO_PATH = "/socket.io/"
MAX_PARAMETERS = 20
FULL_RETRY_MS = 5000
NO_UPGRADE = (
    "This is not the opening of a websocket. It needs `Connection: Upgrade` and `Upgrade: websocket`, which a proxy has to pass on, "
    "and has no body."
)


class HandshakeLimits:
    """WSGI middleware. `cors` gives the headers for an origin, for the answers that Engine.IO does not make itself."""

    def __init__(self, application, handshake_rate: Rate, polling_rate: Rate, clock: Clock, metrics, cors):
        self._application = application
        self._handshakes = MemoryBuckets(handshake_rate)
        self._requests = MemoryBuckets(polling_rate)
        self._clock = clock
        self._metrics = metrics
        self._cors = cors
        self._held = 0  # connections that websockets and polls occupy now

    def __call__(self, environ, start_response):
        if not environ["PATH_INFO"].startswith(ENGINE_IO_PATH):
            return self._application(environ, start_response)
        environ[REQUEST_ID] = request_id_for(environ.get("HTTP_X_REQUEST_ID", ""))
        try:
            query = _query(environ)
            self._check_rate(environ, is_handshake=environ["REQUEST_METHOD"] == "GET" and "sid" not in query)
            _check_form(environ, query)
            return self._hold(environ, start_response)
        except ApiError as error:
            refused = error
        except OSError:
            raise  # the client has gone
        except Exception:
            log.exception("engine_io_failed")
            if has_opened(environ):
                return []
            refused = ApiError("internal")
        status = f"{refused.status} {responses[refused.status]}"
        return _refuse(refused, status, self._cors(environ.get("HTTP_ORIGIN")), environ, start_response)

    def _check_rate(self, environ, *, is_handshake: bool) -> None:
        buckets, what = (self._handshakes, "new connections") if is_handshake else (self._requests, "requests")
        if wait_ms := buckets.take(rate_limit_key(None, environ["REMOTE_ADDR"]), self._clock()):
            self._metrics.http_rate_limited_total.inc()
            raise ApiError("rate_limited", f"Too many {what} from this address; slow down.", retry_after_ms=wait_ms)

    def _hold(self, environ, start_response):
        if environ["REQUEST_METHOD"] != "GET":
            return self._pass(environ, start_response)
        if self._held >= environ.get(MAX_SESSIONS, math.inf):
            log.warning("sessions_full", connections=self._held, consequence="further ones are 503")
            raise ApiError("unavailable", "This server has as many live connections as it takes.", retry_after_ms=FULL_RETRY_MS)
        self._held += 1
        try:
            return self._pass(environ, start_response)
        finally:
            self._held -= 1

    def _pass(self, environ, start_response):
        said = []
        result = self._application(environ, lambda *start: said.append(start))
        if not said:
            return result  # it was a websocket
        status, headers, *_ = said[0]
        if status[:1] != "4":
            start_response(status, [*headers, *_own_headers(environ)])
            return result
        error = ApiError(HTTP_STATUS_TO_CODE.get(int(status[:3]), "bad_request"), _sentence(b"".join(result)))
        return _refuse(error, status, [header for header in headers if header[0] != "Content-Type"], environ, start_response)


def _query(environ) -> dict[str, list[str]]:
    try:
        return parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ApiError("bad_request", f"The address has more than {MAX_PARAMETERS} parameters.") from None


def _check_form(environ, query: dict[str, list[str]]) -> None:
    """Refuses requests for which engineio raises, and JSONP."""
    if "j" in query:
        raise ApiError("bad_request", "JSONP is not offered.")
    wants_websocket = query.get("transport", [""])[0] == "websocket"
    if wants_websocket and "wsgi.websocket" not in environ:
        raise ApiError("bad_request", NO_UPGRADE)
    if "wsgi.websocket" in environ and not wants_websocket:
        raise ApiError("bad_request", "A websocket is opened with transport=websocket.")


def _own_headers(environ) -> list[tuple[str, str]]:
    return [("X-Request-Id", environ[REQUEST_ID]), ("X-Content-Type-Options", "nosniff")]


def _sentence(body: bytes) -> str | None:
    """Engine.IO says what is wrong as a JSON string; None leaves it to the catalogue."""
    try:
        sentence = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return sentence if isinstance(sentence, str) else None


def _refuse(error: ApiError, status: str, headers, environ, start_response):
    """In the catalogue's shape."""
    start_response(status, [("Content-Type", "application/json"), *_own_headers(environ), *headers, *error_headers(error)])
    return [orjson.dumps({"ok": False, "error": error.to_dict()})]
