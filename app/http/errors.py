"""Every error on the HTTP door leaves through here, in the one shape of the catalogue; none leaves as HTML."""

from flask import Flask, Response, g, jsonify
from limits.errors import StorageError
from werkzeug.exceptions import HTTPException

from app.errors import HTTP_STATUS_TO_CODE, ApiError, error_headers, flatten_messages, forget_where
from app.logs import get_logger
from app.logs.sampling import SampledLog

log = get_logger(__name__)
sampled = SampledLog(log)  # a request that causes it can be sent again


def init_errors(app: Flask) -> None:
    app.register_error_handler(ApiError, render_error)
    app.register_error_handler(HTTPException, _from_http_exception)
    app.register_error_handler(StorageError, lambda error: render_error(ApiError("unavailable", retry_after_ms=1000)))
    app.register_error_handler(Exception, _from_surprise)


def render_error(error: ApiError, **more) -> Response:
    response = jsonify(ok=False, error=error.to_dict(), **more)
    response.status_code = error.status
    response.headers.extend(error_headers(error))
    g.error = forget_where(error)
    return response


def _from_http_exception(error: HTTPException) -> Response:
    if error.response is not None or (error.code or 500) < 400:
        return error.get_response()  # a redirect, or an answer that somebody made on purpose
    status = error.code or 500
    code = HTTP_STATUS_TO_CODE.get(status, "internal" if status >= 500 else "bad_request")
    messages = getattr(error, "data", None) or {}
    details = flatten_messages(messages.get("messages", {}))
    message = _SENTENCES.get(code) if not details else "The body has the wrong shape; see details."
    response = render_error(ApiError(code, message, details=details))
    if status == 405 and getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(error.valid_methods)
    return response


_SENTENCES = {"not_found": "There is no such address."}


def _from_surprise(error: Exception) -> Response:
    kind = type(error).__name__
    if sampled.admits(kind) is not None:
        log.exception("unexpected_error", error=kind)
    return render_error(ApiError("internal"))
