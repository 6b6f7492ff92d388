"""The part of WSGI's environ that all requests of a server share (PEP 3333)."""

import logging
from collections.abc import Iterable
from typing import Any

log = logging.getLogger(__name__)


def base_environ(*, is_tls: bool) -> dict[str, Any]:
    """Return the shared part. The server adds its name and port once it listens."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": "switchyard",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if is_tls else "http",
        "wsgi.errors": _ErrorLog(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


class _ErrorLog:
    """The file `wsgi.errors`: logs the text that a library writes to it."""

    def write(self, text: str) -> None:
        """Log the text, unless it is empty."""
        if text.strip():
            log.error("wsgi_error", extra={"text": text.strip()})

    def writelines(self, lines: Iterable[str]) -> None:
        """Log each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: `write` logs at once."""
