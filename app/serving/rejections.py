"""The errors that the server answers itself: for bytes that are not HTTP, and for requests beyond a limit."""

from app.errors import ApiError


class Rejection(Exception):
    """A request that does not reach the application. The server answers with `status` and `error`, and closes the connection."""

    def __init__(self, status: str, error: ApiError):
        super().__init__(status)
        self.status = status
        self.error = error


def not_http() -> Rejection:
    """Return the rejection of bytes that are not a valid request, or that a proxy could read differently."""
    return Rejection("400 Bad Request", ApiError("bad_request", "This is not a request that HTTP/1.1 allows."))


def headers_too_large() -> Rejection:
    """Return the rejection of a head that is too long or has too many headers."""
    sentence = "The request's headers are larger than allowed."
    return Rejection("431 Request Header Fields Too Large", ApiError("payload_too_large", sentence))


def too_many_connections() -> Rejection:
    """Return the rejection of a connection, or behind a proxy of a request, whose address has reached its limit."""
    sentence = "This address has too many connections open; close some, and try again."
    return Rejection("429 Too Many Requests", ApiError("rate_limited", sentence, retry_after_ms=1000))


def too_many_unfinished() -> Rejection:
    """Return the rejection of a request that was dropped before it was complete; see unfinished_bytes.py."""
    sentence = "Too many requests are unfinished, and this one was among the longest; send it again, without pauses."
    return Rejection("503 Service Unavailable", ApiError("unavailable", sentence, retry_after_ms=1000))
