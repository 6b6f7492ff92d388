"""Writes gunicorn's access log: one line per answer, in `--access-logformat`, with all credentials masked.

The format may contain any header and any variable of the request. So credentials are masked twice: in the URLs, where the end of a value
is known, and in the finished line.
"""

import logging
import sys
from datetime import timedelta
from typing import Any

from app.logs.masking import mask, mask_address
from app.serving.response import Response

URLS = ("RAW_URI", "REQUEST_URI", "QUERY_STRING", "PATH_INFO", "HTTP_REFERER")
SECRET_HEADERS = frozenset({"HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_X_WRITE_KEY", "HTTP_COOKIE"})
WEBSOCKET_OPENED = "101 Switching Protocols"


class AccessLog:
    """Writes through `log`, gunicorn's Logger, to `target`, the value of `--access-logfile`.

    The application's logging configuration removes the Logger's handler, so this class adds it again."""

    def __init__(self, log: Any, target: str):
        self._log = log
        log._set_handler(log.access_log, target, fmt=_Masking(log.access_fmt), stream=sys.stdout)
        log.access_log.setLevel(logging.INFO)
        log.access_log.propagate = False

    def write(self, environ: dict, response: Response, seconds: float) -> None:
        """Log one answer."""
        variables = {name: value for name, value in environ.items() if name not in SECRET_HEADERS}
        for name in URLS:
            if name in variables:
                variables[name] = mask_address(variables[name])
        headers = [(name[5:].replace("_", "-"), value) for name, value in variables.items() if name.startswith("HTTP_")]
        self._log.access(_Answer(response), headers, variables, timedelta(seconds=seconds))


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _Answer:
    """The attributes of an answer that gunicorn's Logger reads."""

    def __init__(self, response: Response):
        self.status = response.status or WEBSOCKET_OPENED
        self.headers = response.headers
        self.sent = response.sent
