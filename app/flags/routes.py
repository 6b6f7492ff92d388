"""The HTTP face of flags: reads the request, calls Flags once, renders."""

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
    400: "Something has the wrong shape; `details` names each mistake.",
    401: "No credential, or one that does not hold.",
    403: "The caller's role may not do this.",
    404: "There is no such flag.",
    409: "There is a flag with this key.",
    412: "The flag is not the one that If-Match names.",
    415: "The body says that it is something else than JSON.",
    503: "The store is away, and nothing was changed.",
}

# Schemas are given as instances: of a class the parser would make a new one for every request, a fifth of its whole cost.
blueprint = Blueprint("flags", __name__, description="Feature flags: decided for the caller, and administered.")


def documented(security: list, *statuses: int, also: dict | None = None):
    errors = {status: {"description": ERRORS[status], "content": ERROR_CONTENT} for status in statuses}
    return blueprint.doc(security=security, responses={**errors, **(also or {})})


@blueprint.get("/api/flags")
@any_caller
@blueprint.arguments(ListQuerySchema(), location="query")
@blueprint.arguments(IfNoneMatchSchema(), location="headers")
@blueprint.response(200, FlagListSchema, headers=ETAG)
@documented(CALLER, 400, 401, 403, 503, also=NOT_MODIFIED)
def list_flags(query, headers):
    """The enabled flags, decided for the caller.

    A write key is nobody in particular: for it, flags are decided by `sessionId`. A token's are decided for its user
    and roles. 503 only where the flags could not be read even once since the server started.
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
    """Create a flag. It is disabled and has no rules where the body does not say otherwise."""
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
    """One flag as it is stored, enabled or not."""
    flag = parts().flags.get(_checked(key))
    return unless_known(flag.fingerprint, lambda: jsonify(flag.record))


@blueprint.route("/api/flags/<key>", methods=["PUT"], parameters=[KEY_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.arguments(FlagFieldsSchema())
@blueprint.response(200, FlagSchema, headers=ETAG)
@documented(TOKEN, 400, 401, 403, 404, 412, 415, 503)
def replace_flag(headers, fields, key):
    """Replace a flag. What the body does not have goes back to what a new flag has."""
    return _answer(parts().flags.replace(_agreed(key, fields), fields, headers.get("if_match")))


@blueprint.route("/api/flags/<key>", methods=["PATCH"], parameters=[KEY_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.arguments(FlagFieldsSchema())
@blueprint.response(200, FlagSchema, headers=ETAG)
@documented(TOKEN, 400, 401, 403, 404, 412, 415, 503)
def patch_flag(headers, changes, key):
    """Change the fields that the body has. `rules` is one field and is replaced as a whole."""
    return _answer(parts().flags.patch(_agreed(key, changes), changes, headers.get("if_match")))


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


def _agreed(key: str, fields: dict) -> str:
    """The address names the flag; a body that names another one is a mistake."""
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
