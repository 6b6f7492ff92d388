"""gunicorn's `--access-logfile`, in its `--access-logformat`: one line an answer, without the credentials that an address or a
header may carry.
"""

import logging
import re
import sys
from datetime import timedelta

SECRETS_IN_ADDRESSES = re.compile(r"([?&](?:token|writeKey|ticket)=)[^&]*", re.IGNORECASE)
SECRET_HEADERS = frozenset({"HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_X_WRITE_KEY", "HTTP_COOKIE"})
OPENED = "101 Switching Protocols"


class AccessLog:
    """`log` is gunicorn's Logger. Its own handler is lost when the application configures logging, so it gets it once more."""

    def __init__(self, log, target: str):
        self._log = log
        log._set_handler(log.access_log, target, fmt=logging.Formatter(log.access_fmt), stream=sys.stdout)
        log.access_log.setLevel(logging.INFO)
        log.access_log.propagate = False

    def write(self, environ: dict, response, seconds: float) -> None:
        given = {name: value for name, value in environ.items() if name not in SECRET_HEADERS}
        for name in ("RAW_URI", "REQUEST_URI"):
            given[name] = SECRETS_IN_ADDRESSES.sub(r"\1***", environ[name])
        given["QUERY_STRING"] = SECRETS_IN_ADDRESSES.sub(r"\1***", f"?{environ['QUERY_STRING']}")[1:]
        headers = [(name[5:].replace("_", "-"), value) for name, value in given.items() if name.startswith("HTTP_")]
        self._log.access(_Answer(response), headers, given, timedelta(seconds=seconds))


class _Answer:
    """What gunicorn looks at."""

    def __init__(self, response):
        self.status = response.status or OPENED
        self.headers = response.headers
        self.sent = response.sent
