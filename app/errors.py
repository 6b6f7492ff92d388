"""The catalogue of everything that can go wrong towards a client: one row a code, the same through both doors.

`status` is what HTTP answers, `retryable` whether the same request may succeed later. A new kind of error is a new
row here; nothing else decides a status.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

MAX_DETAILS = 100
MAX_REASON = 300
E = TypeVar("E", bound=Exception)


def forget_where(error: E) -> E:
    """The same without the frames it came through and the errors before it, for whoever keeps it.

    A frame leads to its callers and everything they hold. Kept by one of them, an error would be a cycle with the request's
    body and all that was decoded from it, which waits for the collector.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


@dataclass(frozen=True, slots=True)
class ErrorRow:
    status: int
    retryable: bool
    sentence: str


CATALOGUE: dict[str, ErrorRow] = {
    "bad_request": ErrorRow(400, False, "The request has the wrong shape."),
    "bad_ack": ErrorRow(400, False, "This acknowledges something that was never sent."),
    "unauthorized": ErrorRow(401, False, "A valid token or write key is needed."),
    "token_expired": ErrorRow(401, False, "The token has expired; get a new one."),
    "forbidden": ErrorRow(403, False, "The caller may not do this."),
    "denied": ErrorRow(403, False, "The application's configuration does not take this event."),
    "not_found": ErrorRow(404, False, "There is nothing here."),
    "unknown_topic": ErrorRow(404, False, "There is no subscription to this topic."),
    "method_not_allowed": ErrorRow(405, False, "This address does not offer that method."),
    "conflict": ErrorRow(409, False, "It exists already."),
    "epoch_changed": ErrorRow(409, False, "The topic's numbering restarted; positions of the old epoch are no longer valid."),
    "history_gap": ErrorRow(410, False, "Some of the messages asked for are no longer kept."),
    "refused": ErrorRow(409, False, "The database does not take this event."),
    "precondition_failed": ErrorRow(412, False, "It is not in the state that If-Match names; read it again."),
    "payload_too_large": ErrorRow(413, False, "The body is larger than allowed."),
    "unsupported_media_type": ErrorRow(415, False, "This content type or encoding is not understood."),
    "limit_exceeded": ErrorRow(429, False, "A fixed limit is reached."),
    "rate_limited": ErrorRow(429, True, "Too many requests; slow down."),
    "internal": ErrorRow(500, True, "Something went wrong on the server."),
    "delivery_failed": ErrorRow(503, True, "Messages were sent repeatedly and never acknowledged."),
    "slow_consumer": ErrorRow(503, True, "The client reads too slowly; reconnect and resume."),
    "storage_full": ErrorRow(503, True, "Nothing can be stored right now; send it again later."),
    "unavailable": ErrorRow(503, True, "A part that this needs is away; try again later."),
}

HTTP_STATUS_TO_CODE = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
                       409: "conflict", 412: "precondition_failed", 413: "payload_too_large", 415: "unsupported_media_type",
                       422: "bad_request", 429: "rate_limited", 503: "unavailable"}  # fmt: skip


class ApiError(Exception):
    """Raised anywhere below a face; the face renders it. `code` must be a row of the catalogue.

    `retryable` is the row's, but where this once is known better.
    `details` is a list of `{"path": "events.3.name", "message": "…"}` for bodies of the wrong shape.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        details: list | None = None,
    ):
        row = CATALOGUE[code]
        self.code = code
        self.status = row.status
        self.retryable = row.retryable if retryable is None else retryable
        self.message = message or row.sentence
        self.retry_after_ms = retry_after_ms
        self.details = details
        super().__init__(f"{code}: {self.message}")

    @property
    def summary(self) -> str:
        """For a log: the sentence, and the first of the details."""
        if not self.details:
            return self.message
        first = self.details[0]
        return f"{self.message} {first.get('path', '')}: {first.get('message', '')}"[:MAX_REASON]

    def to_dict(self) -> dict[str, Any]:
        """`{code, message, retryable, retryAfterMs?, details?}`, the part that both doors share."""
        body: dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.retry_after_ms is not None:
            body["retryAfterMs"] = self.retry_after_ms
        if self.details:
            body["details"] = self.details
        return body


def error_headers(error: ApiError) -> list[tuple[str, str]]:
    """429 and 503 always say when to come back, in whole seconds."""
    headers = []
    if error.retry_after_ms is not None or error.status in (429, 503):
        headers.append(("Retry-After", str(max(1, math.ceil((error.retry_after_ms or 0) / 1000)))))
    if error.status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    return headers


def flatten_messages(messages: Any, path: str = "") -> list[dict[str, str]]:
    """Marshmallow's nested messages as a flat list: {"events": {3: {"name": ["Missing"]}}} -> [{"path": "events.3.name", …}].

    At most MAX_DETAILS rows, and one more that says how many were left out: nobody reads on, and an answer must not grow
    larger than the mistake it is about.
    """
    return first_rows(_rows(messages, path), path)


def first_rows(rows: Iterable[dict[str, str]], path: str = "") -> list[dict[str, str]]:
    rows = iter(rows)
    kept = list(islice(rows, MAX_DETAILS))
    left_out = sum(1 for _ in rows)
    return [*kept, {"path": path, "message": f"And {left_out} more."}] if left_out else kept


def _rows(messages: Any, path: str) -> Iterator[dict[str, str]]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            step = "" if key == "_schema" else str(key)
            yield from _rows(inner, f"{path}.{step}" if path and step else path or step)
    elif isinstance(messages, (list, tuple)):
        for inner in messages:
            yield from _rows(inner, path)
    else:
        yield {"path": path, "message": str(messages)}
