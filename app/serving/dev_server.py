"""`flask run`, served by the same gevent server as production, so that websockets work and nothing behaves differently.

Flask's command asks `werkzeug.serving.make_server` for its server and cannot be given another one, so that name is
replaced; the reloader, `--debug`, `--host` and `--port` go on as Flask documents them.
"""

import os
import signal
import socket
import sys

import gevent
import werkzeug.serving

from app.serving.server import Server


def install(app) -> None:
    """From now on `flask run` in this process serves with gevent."""

    def make_server(host, port, application, *_, ssl_context=None, fd=None, **__):
        return DevServer(app, application, host, port, ssl_context, fd)

    werkzeug.serving.make_server = make_server


class DevServer:
    """The part of werkzeug's BaseWSGIServer that `run_simple` uses."""

    def __init__(self, app, application, host, port, ssl_context, fd):
        self._app = app
        self.socket = _listen(host, port) if fd is None else socket.socket(fileno=fd)
        self.host, self.port = host, self.socket.getsockname()[1]
        tls = {"ssl_context": ssl_context} if ssl_context else {}
        body_limit = app.extensions["switchyard"].settings.http_max_body_bytes
        self._server = Server(self.socket, application, max_body_bytes=body_limit, **tls)

    def fileno(self) -> int:
        return self.socket.fileno()

    def log_startup(self) -> None:
        """The banner is printed by `serve_forever`, in the process that serves."""

    def serve_forever(self) -> None:
        parts = self._app.extensions["switchyard"]
        parts.lifecycle.start()
        if os.environ.get("WERKZEUG_RUN_MAIN") != "true":
            gevent.signal_handler(signal.SIGTERM, self._leave)
        self._server.start()
        print(parts.welcome(f"http://{self._shown_host()}:{self.port}"), flush=True)
        try:
            self._server._stop_event.wait()
        except KeyboardInterrupt:
            print(file=sys.stderr)
        finally:
            self.server_close()

    def server_close(self) -> None:
        if not self._server.closed:
            self._server.close()
            parts = self._app.extensions["switchyard"]
            parts.lifecycle.drain(parts.settings.drain_timeout_ms / 1000)
            self._server.stop(timeout=1)

    def _leave(self) -> None:
        self.server_close()
        sys.exit(0)

    def _shown_host(self) -> str:
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - only shown


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        sys.exit(f"switchyard: cannot listen on {host}:{port}: {error.strerror}. Another port: make run PORT=8081")
