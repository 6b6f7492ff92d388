"""gunicorn's `--access-logfile` in its `--access-logformat`: one line per answer, with the credentials of addresses and headers masked.

The format may contain any header and any variable of the request. So credentials are masked twice: in the addresses, where the end of a
value is known, and in the finished line.
"""

import logging
import sys
from datetime import timedelta
from typing import Any

from app.logs.masking import mask, mask_address
from app.serving.response import Response

ADDRESSES = ("RAW_URI", "REQUEST_URI", "QUERY_STRING", "PATH_INFO", "HTTP_REFERER")
SECRET_HEADERS = frozenset({"HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_X_WRITE_KEY", "HTTP_COOKIE"})
OPENED = "101 Switching Protocols"


class AccessLog:
    """`log` is gunicorn's Logger. The application's logging configuration removes its handler, so this adds the handler again."""

    def __init__(self, log: Any, target: str):
        self._log = log
        log._set_handler(log.access_log, target, fmt=_Masking(log.access_fmt), stream=sys.stdout)
        log.access_log.setLevel(logging.INFO)
        log.access_log.propagate = False

    def write(self, environ: dict, response: Response, seconds: float) -> None:
        """Log one answer."""
        given = {name: value for name, value in environ.items() if name not in SECRET_HEADERS}
        for name in ADDRESSES:
            if name in given:
                given[name] = mask_address(given[name])
        headers = [(name[5:].replace("_", "-"), value) for name, value in given.items() if name.startswith("HTTP_")]
        self._log.access(_Answer(response), headers, given, timedelta(seconds=seconds))


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _Answer:
    """The attributes of an answer that gunicorn's Logger reads."""

    def __init__(self, response: Response):
        self.status = response.status or OPENED
        self.headers = response.headers
        self.sent = response.sent
