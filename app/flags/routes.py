"""The HTTP endpoints of flags: each parses the request, calls Flags and renders the answer."""

from flask import Response, jsonify, url_for

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.rules import Context
from app.flags.schemas import (
    KEY_PATTERN,
    KEY_SENTENCE,
    FlagFieldsSchema,
    FlagListSchema,
    FlagSchema,
    ListQuerySchema,
    NewFlagSchema,
    is_key,
)
from app.http.context import admin_only, any_caller, known_caller, parts, service_only
from app.http.etags import ETAG, NOT_MODIFIED, IfMatchSchema, IfNoneMatchSchema, unless_known, with_etag
from app.http.openapi import CALLER, ERROR_CONTENT, TOKEN, Blueprint

PUBLIC_FIELDS = ("enabled", "rules", "startAt", "endAt", "updatedAt")
KEY_PARAMETER = {
    "in": "path",
    "name": "key",
    "required": True,
    "description": KEY_SENTENCE,
    "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
}
LOCATION = {"Location": {"schema": {"type": "string"}}}
ERRORS = {
    400: "The request has mistakes; `details` names each of them.",
    401: "The credential is missing or not valid.",
    403: "The caller's role may not do this.",
    404: "There is no such flag.",
    409: "There is a flag with this key.",
    412: "The flag is not the one that If-Match names.",
    415: "The Content-Type is not JSON.",
    503: "The store cannot be reached. Nothing was changed.",
}

# Schemas are passed as instances: from a class, the parser would build one per request, a fifth of the request's cost.
blueprint = Blueprint("flags", __name__, description="Feature flags: evaluate them for the caller, and change them.")


def documented(security: list, *statuses: int, also: dict | None = None):
    """Add the credentials and the error statuses of an endpoint to the OpenAPI document."""
    errors = {status: {"description": ERRORS[status], "content": ERROR_CONTENT} for status in statuses}
    return blueprint.doc(security=security, responses={**errors, **(also or {})})


@blueprint.get("/api/flags")
@any_caller
@blueprint.arguments(ListQuerySchema(), location="query")
@blueprint.arguments(IfNoneMatchSchema(), location="headers")
@blueprint.response(200, FlagListSchema, headers=ETAG)
@documented(CALLER, 400, 401, 403, 503, also=NOT_MODIFIED)
def list_flags(query, headers):
    """Evaluate all enabled flags for the caller.

    With a token, flags are evaluated for its user and roles; with a write key, for `sessionId`. The answer is 503 only
    when the server has not been able to read the flags since its start.
    """
    caller, every = known_caller(), query["all"]
    if every and not caller.is_service:
        raise ApiError("forbidden", "Only the roles service and admin may see every flag.")
    context = Context(user_id=caller.user_id, session_id=query.get("session_id") or None, roles=caller.roles)
    etag = parts().flags.fingerprint_for(context, with_disabled=every)
    return unless_known(etag, lambda: jsonify(flags=_decided(context, every)))


@blueprint.post("/api/flags")
@admin_only
@blueprint.arguments(NewFlagSchema())
@blueprint.response(201, FlagSchema, headers=ETAG | LOCATION)
@documented(TOKEN, 400, 401, 403, 409, 415, 503)
def create_flag(fields):
    """Create a flag. Unless the body names them, it is disabled and has no rules."""
    flag = parts().flags.create(fields)
    answer = _answer(flag)
    answer.status_code = 201
    answer.headers["Location"] = url_for("flags.get_flag", key=flag.key)
    return answer


@blueprint.route("/api/flags/<key>", methods=["GET"], parameters=[KEY_PARAMETER])
@service_only
@blueprint.arguments(IfNoneMatchSchema(), location="headers")
@blueprint.response(200, FlagSchema, headers=ETAG)
@documented(TOKEN, 400, 401, 403, 404, 503, also=NOT_MODIFIED)
def get_flag(headers, key):
    """Return one flag as it is stored, enabled or not."""
    flag = parts().flags.get(_checked(key))
    return unless_known(flag.fingerprint, lambda: jsonify(flag.record))


@blueprint.route("/api/flags/<key>", methods=["PUT"], parameters=[KEY_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.arguments(FlagFieldsSchema())
@blueprint.response(200, FlagSchema, headers=ETAG)
@documented(TOKEN, 400, 401, 403, 404, 412, 415, 503)
def replace_flag(headers, fields, key):
    """Replace a flag. Fields that the body omits get the defaults of a new flag."""
    return _answer(parts().flags.replace(_checked_with_body(key, fields), fields, headers.get("if_match")))


@blueprint.route("/api/flags/<key>", methods=["PATCH"], parameters=[KEY_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.arguments(FlagFieldsSchema())
@blueprint.response(200, FlagSchema, headers=ETAG)
@documented(TOKEN, 400, 401, 403, 404, 412, 415, 503)
def patch_flag(headers, changes, key):
    """Change the fields that the body names. `rules` is one field and is replaced as a whole."""
    return _answer(parts().flags.patch(_checked_with_body(key, changes), changes, headers.get("if_match")))


@blueprint.route("/api/flags/<key>", methods=["DELETE"], parameters=[KEY_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.response(204)
@documented(TOKEN, 400, 401, 403, 404, 412, 503)
def delete_flag(headers, key):
    """Delete a flag."""
    parts().flags.delete(_checked(key), headers.get("if_match"))
    return Response(status=204)


def _checked(key: str) -> str:
    if not is_key(key):
        raise ApiError("bad_request", "This is not the key of a flag.", details=[{"path": "key", "message": KEY_SENTENCE}])
    return key


def _checked_with_body(key: str, fields: dict) -> str:
    """Remove the key from the body; it must be the one in the address."""
    if fields.pop("key", key) != _checked(key):
        raise ApiError("bad_request", details=[{"path": "key", "message": "Not the key in the address; a key cannot be changed."}])
    return key


def _decided(context: Context, every: bool) -> list[dict]:
    return [
        {"key": flag.key, "on": decision.on, "reason": decision.reason, **(flag.record if every else _public(flag))}
        for flag, decision in parts().flags.evaluate_all(context, with_disabled=every)
    ]


def _public(flag: Flag) -> dict:
    record = flag.record
    return {name: record[name] for name in PUBLIC_FIELDS}


def _answer(flag: Flag) -> Response:
    return with_etag(jsonify(flag.record), flag.fingerprint)
