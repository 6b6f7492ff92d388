"""JSON lines for machines, coloured lines for a person at a terminal; gunicorn's and the libraries' lines take the same road.

Context (request id, connection id, user) is bound once per request and appears on every line of it. Values under a
name that sounds like a secret, and what looks like one inside a text, are masked here, as the last guard: no code
should hand one over in the first place.
"""

import json
import logging
import logging.config
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from app.logs.masking import MASK, NAME, mask, mask_known
from app.settings import Settings

COLOUR = re.compile(r"\x1b\[[\d;]*m")
CHATTY_LIBRARIES = ("engineio", "socketio", "geventwebsocket", "pymongo", "urllib3", "flask-limiter")


def _mask_secrets(_logger, _method, line):
    return {name: _masked(name, value) for name, value in line.items()}


def _masked(name: Any, value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if NAME.search(str(name)):
        return MASK
    if isinstance(value, dict):
        return {inner: _masked(inner, item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked("", item) for item in value]
    return mask(value) if isinstance(value, str) else value


def _render_json(_logger, _method, line) -> str:
    try:
        return orjson.dumps(line, default=_as_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # half of a surrogate pair in a text; a line that cannot be written would be lost
        return json.dumps({str(name): repr(value) if isinstance(value, dict) else value for name, value in line.items()}, default=_as_text)


def _as_text(value: Any) -> str:
    """An exception, for example, whose text only exists now."""
    return mask(str(value))


def _renderer_for_a_person() -> Callable[..., str]:
    """In colours where a terminal shows them, unless NO_COLOR asks for none (https://no-color.org); else without those, too,
    that a library (werkzeug) puts into its texts."""
    in_colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    render = structlog.dev.ConsoleRenderer(colors=in_colours, exception_formatter=structlog.dev.plain_traceback)
    return lambda *line: mask_known(render(*line) if in_colours else COLOUR.sub("", render(*line)))


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
    renderer = _render_json if as_json else _renderer_for_a_person()
    level = getattr(logging, settings.log_level.upper())
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        "foreign_pre_chain": [structlog.stdlib.ExtraAdder(), *steps],
    }
    to_root = {"level": level, "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"switchyard": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "switchyard", "stream": "ext://sys.stderr"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            **{name: {"level": max(level, logging.WARNING)} for name in CHATTY_LIBRARIES},
            "gunicorn.error": to_root,
            "gunicorn.access": {**to_root, "level": max(level, logging.WARNING)},
        },
    }


def configure_logs(settings: Settings) -> None:
    config = logging_config(settings)
    logging.config.dictConfig(config)
    logging.captureWarnings(settings.is_production)
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
