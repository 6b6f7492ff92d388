"""Switchyard: collects telemetry, decides feature flags, carries live topics. Start reading at `create_app`.

The imports stand inside, because gunicorn's master reads `app.settings` and must not load drivers before the fork.
"""


def create_app(settings=None, parts=None):
    """The application, from the settings in use, or from the given Settings and Parts (see wiring.build)."""
    from flask import Flask

    from app import cli, flags, http, logs, realtime, sdk, telemetry
    from app.settings_in_use import in_use, warn_of_misspelt_names
    from app.wiring import build

    settings = settings or in_use()
    logs.configure_logs(settings)
    warn_of_misspelt_names(logs.get_logger("app.settings"))
    parts = parts or build(settings)

    app = Flask(__name__, static_folder=None)
    app.extensions["switchyard"] = parts
    api = http.init_app(app, settings)
    api.register_blueprint(telemetry.routes.blueprint)
    api.register_blueprint(flags.routes.blueprint)
    api.register_blueprint(realtime.routes.blueprint)
    app.register_blueprint(realtime.routes.contract)
    app.register_blueprint(sdk.routes.blueprint)
    realtime.attach(app, settings, parts)
    http.open_fast_lane(app, telemetry.routes.fast_routes(parts))
    http.trust_proxies(app, settings)
    cli.init_app(app)
    app.realtime = parts.realtime  # type: ignore[attr-defined]  # documented: a view calls app.realtime.publish()
    return app
