"""Runs `flask run` on the gevent server of production, so that websockets work and all behaviour is the same.

Flask's command calls `werkzeug.serving.make_server` and has no option for another server, so `install` replaces that function. The
reloader, `--debug`, `--host` and `--port` work as Flask documents them. Without `--port` the port comes from the settings. Flask does not
know them, since it chooses its port before it loads the application.
"""

import signal
import socket
import ssl
import sys
from typing import Any

import click
import gevent
import werkzeug.serving
from click.core import ParameterSource
from werkzeug.serving import is_running_from_reloader

from app.serving.gc_tuning import freeze_startup_objects
from app.serving.server import Server
from app.serving.server_options import server_options
from app.serving.tls import load
from app.serving.uncaught_errors import log_uncaught_errors


def install(app: Any) -> None:
    """Make `flask run` in this process serve with gevent."""

    def make_server(host, port, _application, _threaded, _processes, _handler, _passthrough_errors, ssl_context=None, fd=None):
        """Return a server of `app`, and ignore the given application.

        With `--debug` the given one is `app` inside werkzeug's debugger. That would never see an exception, since every error becomes an
        answer, and it uses /console for itself."""
        return DevServer(app, host, port if _is_port_given() else app.extensions["switchyard"].settings.port, ssl_context, fd)

    werkzeug.serving.make_server = make_server  # type: ignore[assignment]  # a DevServer has only the methods that `flask run` calls


def _is_port_given() -> bool:
    """Return whether the port comes from `--port` or FLASK_RUN_PORT, and is not Flask's default of 5000."""
    return click.get_current_context().get_parameter_source("port") is not ParameterSource.DEFAULT


class DevServer:
    """Has the methods of werkzeug's BaseWSGIServer that `run_simple` calls.

    With the reloader, one process holds the socket and another one serves; `fd` passes the socket between them."""

    def __init__(self, app: Any, host: str, port: int, ssl_context: Any, fd: int | None):
        self._parts = app.extensions["switchyard"]
        self.socket = _listen(host, port) if fd is None else socket.socket(fileno=fd)
        self.host, self.port = host, self.socket.getsockname()[1]
        self._scheme = "https" if ssl_context else "http"
        tls: dict[str, Any] = {"ssl_context": _tls(ssl_context)} if ssl_context else {}
        self._server = Server(self.socket, app, **server_options(self._parts), **tls)

    def fileno(self) -> int:
        """Return the listener's file descriptor, which the reloader passes to the process that serves."""
        return self.socket.fileno()

    def log_startup(self) -> None:
        """Do nothing. `serve_forever` prints the banner, in the process that serves."""

    def serve_forever(self) -> None:
        """Serve until SIGTERM or Ctrl-C, then drain."""
        log_uncaught_errors()
        self._parts.lifecycle.start()
        if not is_running_from_reloader():  # the reloader has a signal handler of its own
            gevent.signal_handler(signal.SIGTERM, self._server.close)
            self._on_ctrl_c = gevent.signal_handler(signal.SIGINT, self._interrupt)
        freeze_startup_objects()
        self._server.start()
        print(self._parts.welcome(f"{self._scheme}://{self._shown_host()}:{self.port}"), flush=True)
        try:
            self._server.wait_until_closed()
        except KeyboardInterrupt:
            print(file=sys.stderr)
        finally:
            self.server_close()
        if self._parts.lifecycle.has_failed:
            sys.exit(1)

    def _interrupt(self) -> None:
        """Handle the first Ctrl-C in the event loop. A second Ctrl-C ends the process without a drain.

        A KeyboardInterrupt would be raised in whatever code runs at that moment, and Python ignores exceptions in a finalizer.
        """
        self._on_ctrl_c.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(file=sys.stderr)
        self._server.close()

    def server_close(self) -> None:
        """Stop accepting, and drain the requests in progress."""
        self._server.close()
        if self._parts.lifecycle.state != "new":
            self._parts.lifecycle.drain(self._parts.settings.drain_timeout_ms / 1000)
            self._server.stop(timeout=1)

    def _shown_host(self) -> str:
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else _url_host(self.host)  # noqa: S104 - not bound here


def _url_host(host: str) -> str:
    """Return the host as a URL writes it: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _tls(given: Any) -> ssl.SSLContext:
    """Return a context for Flask's value of `--cert`, which is (certificate, key), "adhoc" or a context."""
    if given == "adhoc":
        return werkzeug.serving.generate_adhoc_ssl_context()
    return load(*given, names=("--cert", "--key")) if isinstance(given, tuple) else given


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        sys.exit(f"switchyard: cannot listen on {_url_host(host)}:{port}: {reason}. Choose another port: make run PORT=8081")
