"""`GET /openapi.json`, made by flask-smorest from the schemas that validate: what is documented is what is checked."""

from flask import Flask
from flask_smorest import Api as SmorestApi
from flask_smorest import Blueprint as SmorestBlueprint
from webargs.flaskparser import FlaskParser

from app.errors import ApiError, flatten_messages
from app.http.json import decode_json

SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "writeKey": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["ok", "error"],
    "properties": {
        "ok": {"type": "boolean", "enum": [False]},
        "error": {
            "type": "object",
            "required": ["code", "message", "retryable"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "retryable": {"type": "boolean"},
                "retryAfterMs": {"type": "integer"},
                "details": {"type": "array", "items": {"type": "object"}},
            },
        },
    },
}


class Parser(FlaskParser):
    """webargs' parser with our JSON, our status and our error shape."""

    DEFAULT_VALIDATION_STATUS = 400

    def _raw_load_json(self, req):
        return decode_json(req.get_data())

    def handle_error(self, error, req, schema, *, error_status_code, error_headers):
        messages = error.normalized_messages()
        inner = next(iter(messages.values())) if len(messages) == 1 and next(iter(messages)) in ("json", "query") else messages
        raise ApiError("bad_request", "The request has the wrong shape; see details.", details=flatten_messages(inner))


class Blueprint(SmorestBlueprint):
    ARGUMENTS_PARSER = Parser()


class Api(SmorestApi):
    def _register_error_handlers(self):
        """None: app/http/errors.py renders every error."""


def init_openapi(app: Flask) -> Api:
    app.config.update(
        API_TITLE="Switchyard",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
    )
    api = Api(app)
    for name, scheme in SECURITY.items():
        api.spec.components.security_scheme(name, scheme)
    api.spec.components.schema("Error", ERROR_SCHEMA)
    api.spec.components.response(
        "DEFAULT_ERROR", {"description": "Any error", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    )
    return api
