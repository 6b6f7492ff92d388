"""gunicorn's gevent worker, with the server of this package. gunicorn.conf.py names the class."""

import sys
import time
from typing import Any

from gevent.event import Event
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from app.serving.access_log import AccessLog
from app.serving.gc_tuning import freeze_startup_objects
from app.serving.response import Response
from app.serving.server import Server
from app.serving.server_options import server_options
from app.serving.tls import CERTIFICATE
from app.serving.uncaught_errors import log_uncaught_errors
from app.settings import SettingsError
from app.settings.in_use import IN_USE

LAST_ANSWERS_S = 1.0  # the time for the last answers, where the drain has used up its own time
RESTART_AFTER_S = 1.0  # a worker that cannot start ends after this delay, since the master replaces it at once


class Worker(GeventWorker):
    """Loads the application after the fork, so the application's background tasks start in the worker.

    `run` replaces gunicorn's own loop, which checks only once a second whether the worker should end, and does not drain.
    """

    alive: bool
    _should_end: Event  # exists from `init_process` on, because gevent patches the process after the fork

    def init_process(self) -> None:
        """Start, and log a failure in one line.

        The failure also ends the master where no worker has served yet. Later the master keeps running, so that a mistake in a reload
        does not end a running server.
        """
        self._should_end = Event()
        try:
            super().init_process()
        except SettingsError as error:
            self.log.critical("%s", error)
            self._end()
        except Exception:
            self.log.critical("worker_failed", exc_info=True)
            self._end()

    def _end(self) -> None:
        if not IN_USE.has_served:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self._should_end.wait(RESTART_AFTER_S)
        sys.exit(1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle SIGTERM."""
        super().handle_exit(sig, frame)
        if hasattr(self, "_should_end"):
            self._should_end.set()

    def run(self) -> None:
        """Serve until the worker should end, then drain."""
        log_uncaught_errors()
        parts = self.wsgi.extensions["switchyard"]
        self._access_log = AccessLog(self.log, self.cfg.accesslog) if self.cfg.accesslog else None
        options = self._options(parts)
        servers = [self._server(listener, options) for listener in self.sockets]
        parts.lifecycle.start()
        freeze_startup_objects()
        for server in servers:
            server.start()
        IN_USE.note_serving()
        while self.alive:
            self.notify()
            self._should_end.wait(1.0)
        self._drain(servers, parts)

    def _options(self, parts: Any) -> dict[str, Any]:
        on_answer = {"on_answer": self._count_answer} if self._access_log or self.cfg.max_requests else {}
        tls = {"ssl_context": CERTIFICATE.for_worker()} if self.cfg.is_ssl else {}
        return {**server_options(parts, self.worker_connections), **on_answer, **tls}

    def _server(self, listener: Any, options: dict[str, Any]) -> Server:
        listener.setblocking(1)
        server = Server(listener, self.wsgi, **options)
        if self.cfg.workers > 1:
            server.max_accept = 1  # a worker that accepts several at once would take those of an idle worker
        return server

    def _count_answer(self, environ: dict, response: Response, seconds: float) -> None:
        if self._access_log is not None:
            self._access_log.write(environ, response, seconds)
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("--max-requests is reached; the master starts another worker")
            self.alive = False
            self._should_end.set()

    def _drain(self, servers: list[Server], parts: Any) -> None:
        for server in servers:
            server.close()
        deadline = time.monotonic() + parts.settings.drain_timeout_ms / 1000
        parts.lifecycle.drain(parts.settings.drain_timeout_ms / 1000)
        for server in servers:
            server.stop(timeout=max(LAST_ANSWERS_S, deadline - time.monotonic()))
