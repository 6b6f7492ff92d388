"""JSON lines for machines, coloured lines for a person at a terminal; gunicorn's and the libraries' lines take the same road.

Context (request id, connection id, user) is bound once per request and appears on every line of it. Values under a
name that sounds like a secret are masked here, as the last guard: no code should hand one over in the first place.
"""

import logging
import logging.config

import orjson
import structlog

from app.settings import Settings

SECRET_NAMES = frozenset({"token", "authorization", "writekey", "write_key", "secret", "password", "payload"})
CHATTY_LIBRARIES = ("engineio", "socketio", "geventwebsocket", "pymongo", "urllib3", "flask-limiter")


def _mask_secrets(_logger, _method, line):
    for name in line:
        if name.lower() in SECRET_NAMES:
            line[name] = "***"
    return line


def _render_json(_logger, _method, line) -> str:
    return orjson.dumps(line, default=str).decode()


SHARED_STEPS = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _mask_secrets,
]


def logging_config(settings: Settings) -> dict:
    """For logging.config.dictConfig; gunicorn takes the same as its `logconfig_dict`."""
    as_json = settings.log_format == "json" or (settings.log_format is None and settings.is_production)
    steps = [step for step in SHARED_STEPS if as_json or step is not structlog.processors.format_exc_info]
    renderer = _render_json if as_json else structlog.dev.ConsoleRenderer()
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        "foreign_pre_chain": [structlog.stdlib.ExtraAdder(), *steps],
    }
    to_root = {"level": "INFO", "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"switchyard": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "switchyard", "stream": "ext://sys.stderr"}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
        "loggers": {
            **{name: {"level": "WARNING"} for name in CHATTY_LIBRARIES},
            "gunicorn.error": to_root,
            "gunicorn.access": {**to_root, "level": "WARNING"},
        },
    }


def configure_logs(settings: Settings) -> None:
    config = logging_config(settings)
    logging.config.dictConfig(config)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *config["formatters"]["switchyard"]["foreign_pre_chain"][1:],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    return structlog.get_logger(name)
