"""Telemetry's face: parses, calls one function, renders.

A batch may come as `text/plain`, because `navigator.sendBeacon` cannot send JSON without a preflight and a page that is
closing has no time for one.
"""

from functools import partial

from flask import Response, jsonify, make_response, request
from marshmallow import RAISE

from app.errors import ApiError
from app.http.body import read_body
from app.http.context import admin_only, any_caller, known_caller, parts
from app.http.etags import ETAG, NOT_MODIFIED, IfMatchSchema, IfNoneMatchSchema, unless_known, with_etag
from app.http.openapi import CALLER, ERROR_CONTENT, TOKEN, Blueprint
from app.http.rate_limits import rate_limit_key
from app.telemetry import schemas
from app.telemetry.config.schemas import AppConfigSchema, ConfigSchema, OverridesSchema
from app.telemetry.query import query_from
from app.telemetry.shares.sender import Sender

BODY_TYPES = ("application/json", "text/plain")
WRONG_TYPE = "A batch comes as application/json or text/plain; send it with Content-Type: application/json."

blueprint = Blueprint("telemetry", __name__, url_prefix="/api", description="Batches of events in, pages of events out.")

APP_SENTENCE = "The name of an application: 1 to 128 characters."
APP_PARAMETER = {
    "in": "path",
    "name": "app",
    "required": True,
    "description": APP_SENTENCE,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
CHANGED = {412: {"description": "It is not what If-Match names.", "content": ERROR_CONTENT}}
CONFIG, OVERRIDES = ConfigSchema(), OverridesSchema()


def _body_of(schema) -> dict:
    return {
        "content": {content_type: {"schema": schema} for content_type in BODY_TYPES},
        "description": "Plain, or with Content-Encoding: gzip.",
        "required": True,
    }


@blueprint.post("/telemetry/batch")
@any_caller
@blueprint.response(200, schemas.SavedSchema)
@blueprint.doc(summary="Save a batch of events", security=CALLER, requestBody=_body_of(schemas.BatchSchema))
def save_batch():
    return _save(default_type=None)


@blueprint.post("/perf/batch")
@any_caller
@blueprint.response(200, schemas.SavedSchema)
@blueprint.doc(
    summary="Save a batch whose events are of type perf where they do not say",
    security=CALLER,
    requestBody=_body_of(schemas.PerfBatchSchema),
)
def save_perf_batch():
    return _save(default_type="perf")


def fast_routes(parts) -> dict:
    """The same two for app/http/fast_lane.py."""

    def save(body, identity, who, default_type=None):
        return parts.telemetry.save(body, default_type, Sender(who, identity))

    return {"/api/telemetry/batch": save, "/api/perf/batch": partial(save, default_type="perf")}


def _save(default_type: str | None):
    if request.mimetype not in BODY_TYPES and request.mimetype:
        raise ApiError("unsupported_media_type", WRONG_TYPE)
    identity = known_caller()
    sender = Sender(rate_limit_key(identity, request.remote_addr), identity)
    return jsonify(parts().telemetry.save(read_body(parts().settings.http_max_body_bytes), default_type, sender))


@blueprint.get("/telemetry/config")
@any_caller
@blueprint.arguments(schemas.ConfigQuerySchema, location="query")
@blueprint.response(200, ConfigSchema)
@blueprint.doc(summary="What an SDK should sample and send", security=CALLER)
def read_config(arguments):
    app = arguments.get("app")
    if app is not None and not known_caller().may_name(app):
        raise ApiError("forbidden", f"This write key may not name the application {app}.")
    config = CONFIG.dump(parts().telemetry_config.for_app(app))
    response = make_response(jsonify(config))
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    if response.status_code == 412:  # somebody sent If-Match, which is for changes
        raise ApiError("precondition_failed")
    return response


@blueprint.route("/telemetry/config/<path:app>", methods=["GET"], parameters=[APP_PARAMETER])
@admin_only
@blueprint.arguments(IfNoneMatchSchema(), location="headers")
@blueprint.response(200, AppConfigSchema, headers=ETAG)
@blueprint.doc(summary="An application's own configuration, and what it comes to", security=TOKEN, responses=NOT_MODIFIED)
def read_app_config(headers, app):
    overrides = parts().telemetry_config.overrides_of(_checked(app))
    etag = parts().telemetry_config.fingerprint_of(overrides)
    return unless_known(etag, lambda: _app_config(app, overrides))


@blueprint.route("/telemetry/config/<path:app>", methods=["PUT"], parameters=[APP_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.arguments(OverridesSchema())
@blueprint.response(200, AppConfigSchema, headers=ETAG)
@blueprint.doc(summary="Override the configuration for one application", security=TOKEN, responses=CHANGED)
def put_app_config(headers, overrides, app):
    """Replaces all that the application had: what the body does not have, or has as null, is as the settings say. This
    worker enforces it at once, the others within TELEMETRY_CONFIG_REFRESH_MS; an event that is denied is rejected by itself,
    with code `denied`."""
    parts().telemetry_config.put(_checked(app), overrides, headers.get("if_match"))
    return with_etag(_app_config(app, overrides), parts().telemetry_config.fingerprint_of(overrides))


@blueprint.route("/telemetry/config/<path:app>", methods=["DELETE"], parameters=[APP_PARAMETER])
@admin_only
@blueprint.arguments(IfMatchSchema(), location="headers")
@blueprint.response(204)
@blueprint.doc(summary="Let an application have what the settings say", security=TOKEN, responses=CHANGED)
def delete_app_config(headers, app):
    parts().telemetry_config.remove(_checked(app), headers.get("if_match"))
    return Response(status=204)


def _app_config(app: str, overrides: dict):
    config = parts().telemetry_config.for_app(app)
    return jsonify(ok=True, app=app, overrides=OVERRIDES.dump(overrides), config=CONFIG.dump(config))


def _checked(app: str) -> str:
    if len(app) > 128:
        raise ApiError("bad_request", "The request has the wrong shape; see details.", details=[{"path": "app", "message": APP_SENTENCE}])
    return app


@blueprint.get("/telemetry/stats")
@admin_only
@blueprint.arguments(schemas.StatsQuerySchema, location="query", unknown=RAISE)
@blueprint.response(200, schemas.StatsSchema)
@blueprint.doc(summary="Counts, rates and percentiles by buckets of time", security=TOKEN)
def read_stats(arguments):
    """Of the events that are stored; nothing is scaled up by a sample rate. An event counts in the minute of its `ts`, one
    whose `ts` is more than a day away in its day only; it shows here within TELEMETRY_ROLLUPS_FLUSH_MS. Apps, envs and names beyond a
    number of them are counted as `(other)`."""
    return jsonify(ok=True, **parts().telemetry_stats.answer(arguments))


@blueprint.get("/telemetry/events")
@admin_only
@blueprint.arguments(schemas.EventsQuerySchema, location="query", unknown=RAISE)
@blueprint.response(200, schemas.EventsPageSchema)
@blueprint.doc(summary="Stored events, the newest first", security=TOKEN)
def read_events(arguments):
    page = parts().telemetry_events.find(query_from(arguments))
    return jsonify(ok=True, events=[event.to_wire() for event in page.events], nextCursor=page.next_cursor)
