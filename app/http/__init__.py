"""What every HTTP answer shares, whichever package makes it: error shape, request id, caller, CORS, limits, health.

Nothing here knows telemetry, flags or topics.
"""

from collections.abc import Callable
from typing import Any

from flask import Flask, request
from werkzeug.exceptions import NotFound
from werkzeug.middleware.proxy_fix import ProxyFix

from app.http import health, metrics
from app.http.cors import init_cors
from app.http.errors import init_errors
from app.http.etags import init_etags
from app.http.fast_lane import FastLane
from app.http.json import FastJson
from app.http.openapi import Api, init_openapi
from app.http.rate_limits import hit_by, init_rate_limits
from app.http.request_id import init_request_ids
from app.settings import Settings


def init_app(app: Flask, settings: Settings) -> Api:
    """Order matters: an answer of the rate limit has a request id, too, and is readable across origins."""
    app.json = FastJson(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.http_max_body_bytes
    app.url_map.merge_slashes = False  # a redirect would carry `?writeKey=` to whatever the Host header says
    init_request_ids(app)
    init_cors(app, settings)
    api = init_openapi(app)
    init_errors(app)
    init_etags(app)
    init_rate_limits(app, settings)
    app.before_request(_refuse_double_slash)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    return api


def _refuse_double_slash() -> None:
    """Werkzeug takes `//path` and `/%2Fpath` for `/path`; a proxy's rule about `/path` does not hold for them."""
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound()


Layer = Callable[[Any], Any]  # takes the WSGI application inside it, returns the one around it


def stack(*layers: Layer, flask) -> Any:
    """Put the layers around the Flask application; the first one given is the outermost."""
    application = flask
    for layer in reversed(layers):
        application = layer(application)
    return application


def behind_proxies(settings: Settings) -> Layer:
    """Return the layer that reads the client's address from TRUSTED_PROXIES many proxies."""
    hops = settings.trusted_proxies
    return (lambda inner: ProxyFix(inner, x_for=hops, x_proto=hops, x_host=hops)) if hops else (lambda inner: inner)


def fast_lane_for(app: Flask, routes: dict) -> Layer:
    """Return the layer of the routes that carry nearly all the load; `routes` maps paths to functions of a body (fast_lane.py)."""
    (limiter,) = app.extensions["limiter"]
    parts = app.extensions["switchyard"]
    return lambda inner: FastLane(inner, routes, parts, hit_by(limiter, parts.settings))
