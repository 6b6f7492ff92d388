"""gunicorn's gevent worker with our server in it. gunicorn.conf.py names this class."""

import sys
import time

from gevent.event import Event
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from app.serving.access_log import AccessLog
from app.serving.gc_tuning import freeze_startup_objects
from app.serving.server import Server, server_options
from app.serving.tls import CERTIFICATE
from app.serving.uncaught_errors import log_uncaught_errors
from app.settings import SettingsError
from app.settings.in_use import IN_USE

LAST_ANSWERS_S = 1.0  # for requests that are still under way when the drain has used up its time
TRY_AGAIN_S = 1.0  # the master replaces a worker at once


class Worker(GeventWorker):
    """The application is loaded after the fork; so its background work starts here, in the worker that it serves.

    gunicorn's own loop looks once a second whether it should end, and leaves without a drain when no connection is open.
    """

    _told = None

    def init_process(self):
        """A worker that cannot start ends the master only where no worker has ever served: a start that is wrong should fail,
        and a server that runs should not end because of what became wrong later."""
        self._told = Event()
        try:
            super().init_process()
        except SettingsError as error:
            self.log.critical("%s", error)
            self._end()
        except Exception:
            self.log.critical("worker_failed", exc_info=True)
            self._end()

    def _end(self):
        if not IN_USE.has_served:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self._told.wait(TRY_AGAIN_S)
        sys.exit(1)

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        if self._told is not None:
            self._told.set()

    def run(self):
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
            self._told.wait(1.0)
        self._leave(servers, parts)

    def _options(self, parts) -> dict:
        watch = {"on_answer": self._note_answer} if self._access_log or self.cfg.max_requests else {}
        tls = {"ssl_context": CERTIFICATE.for_worker()} if self.cfg.is_ssl else {}
        return {**server_options(parts, self.worker_connections), **watch, **tls}

    def _server(self, listener, options: dict) -> Server:
        listener.setblocking(1)
        server = Server(listener, self.wsgi, **options)
        if self.cfg.workers > 1:
            server.max_accept = 1  # so that the workers share what arrives
        return server

    def _note_answer(self, environ, response, seconds) -> None:
        if self._access_log is not None:
            self._access_log.write(environ, response, seconds)
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("--max-requests is reached; another worker takes over")
            self.alive = False
            self._told.set()

    def _leave(self, servers: list[Server], parts) -> None:
        for server in servers:
            server.close()
        deadline = time.monotonic() + parts.settings.drain_timeout_ms / 1000
        parts.lifecycle.drain(parts.settings.drain_timeout_ms / 1000)
        for server in servers:
            server.stop(timeout=max(LAST_ANSWERS_S, deadline - time.monotonic()))
