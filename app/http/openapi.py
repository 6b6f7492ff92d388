"""`GET /openapi.json`, made by flask-smorest from the schemas that validate: what is documented is what is checked."""

from flask import Flask
from flask_smorest import Api as SmorestApi
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, fields
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict

from app.errors import ApiError, flatten_messages
from app.http.json import decode_object

SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "writeKey": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
    "writeKeyInQuery": {"type": "apiKey", "in": "query", "name": "writeKey", "description": "For beacons, which have no headers."},
}
# Who may ask, for `security`: anybody whom we know, or a token's owner.
CALLER = [{"token": []}, {"writeKey": []}, {"writeKeyInQuery": []}]
TOKEN = [{"token": []}]


class ProblemSchema(Schema):
    code = fields.String(required=True)
    message = fields.String(required=True)
    retryable = fields.Boolean(required=True)
    retry_after_ms = fields.Integer(data_key="retryAfterMs")
    details = fields.List(fields.Dict(keys=fields.String(), values=fields.String()))


class ErrorSchema(Schema):
    """What app/http/errors.py renders."""

    ok = fields.Boolean(required=True, metadata={"enum": [False]})
    error = fields.Nested(ProblemSchema, required=True)


ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}  # for a status of its own in the document


class Parser(FlaskParser):
    """webargs' parser with our JSON, our status and our error shape. A body that names no type is taken for JSON."""

    DEFAULT_VALIDATION_STATUS = 400

    def _raw_load_json(self, req):
        if req.mimetype and not req.is_json:
            raise ApiError("unsupported_media_type", "A body here is JSON; send it with Content-Type: application/json.")
        return decode_object(req.get_data())

    def load_querystring(self, req, schema):
        """Without the write key, which may stand on every address and is the gatekeeper's to read."""
        return self._makeproxy(MultiDict(pair for pair in req.args.items(multi=True) if pair[0] != "writeKey"), schema)

    def handle_error(self, error, req, schema, *, error_status_code, error_headers):
        messages = error.normalized_messages()
        inner = next(iter(messages.values())) if len(messages) == 1 and next(iter(messages)) in ("json", "query") else messages
        raise ApiError("bad_request", "The request has the wrong shape; see details.", details=flatten_messages(inner))


class Blueprint(SmorestBlueprint):
    ARGUMENTS_PARSER = Parser()


class Api(SmorestApi):
    """Documents our error shape, and leaves rendering to app/http/errors.py."""

    ERROR_SCHEMA = ErrorSchema

    def _register_error_handlers(self):
        pass


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
    return api
