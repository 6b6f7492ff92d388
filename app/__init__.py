"""Switchyard: collects telemetry, decides feature flags, carries live topics. Start reading at `create_app`.

The imports are inside the function, because the master process of gunicorn reads `app.settings` and must not load drivers before the fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.settings import Settings
    from app.wiring import Parts


def create_app(settings: Settings | None = None, parts: Parts | None = None) -> Flask:
    """Return the application. Without arguments it reads the settings from the environment; a test passes its own Settings or Parts."""
    from flask import Flask

    from app import cli, flags, http, logs, realtime, sdk, telemetry
    from app.settings.in_use import in_use, warn_of_misspelt_names
    from app.wiring import build

    settings = settings or in_use()
    logs.configure_logs(settings)
    warn_of_misspelt_names(logs.get_logger("app.settings"))
    parts = parts or build(settings)

    app = Flask(__name__, static_folder=None)
    app.extensions["switchyard"] = parts
    app.realtime = parts.realtime  # type: ignore[attr-defined]  # for views: current_app.realtime.publish(topic, payload)
    api = http.init_app(app, settings)
    api.register_blueprint(telemetry.routes.blueprint)
    api.register_blueprint(flags.routes.blueprint)
    api.register_blueprint(realtime.routes.blueprint)
    app.register_blueprint(realtime.routes.contract)
    app.register_blueprint(sdk.routes.blueprint)
    cli.init_app(app)

    sockets = realtime.attach(app, settings, parts)
    app.wsgi_app = http.stack(  # type: ignore[method-assign]  # outermost first: a request passes from the top to the bottom
        http.behind_proxies(settings),
        http.fast_lane_for(app, telemetry.routes.fast_routes(parts)),
        sockets.handshake_limits,
        sockets.engineio_guard,
        sockets.socket_io,
        flask=app.wsgi_app,
    )
    return app
