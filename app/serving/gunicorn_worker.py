"""gunicorn's gevent worker with our server in it. gunicorn.conf.py names this class."""

import sys
import time

from gevent.event import Event
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from app.serving.errors import log_what_nobody_catches
from app.serving.garbage import spare_what_stays
from app.serving.server import Server, server_options
from app.settings import SettingsError

LAST_ANSWERS_S = 1.0  # for requests that are still under way when the drain has used up its time


class Worker(GeventWorker):
    """The application is loaded after the fork; so its background work starts here, in the worker that it serves.

    gunicorn's own loop looks once a second whether it should end, and leaves without a drain when no connection is open.
    """

    _told = None

    def init_process(self):
        self._told = Event()
        super().init_process()

    def load_wsgi(self):
        """A setting that only the application finds wrong ends the master, too; it would start workers for ever."""
        try:
            super().load_wsgi()
        except SettingsError as error:
            self.log.critical("%s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        if self._told is not None:
            self._told.set()

    def run(self):
        log_what_nobody_catches()
        parts = self.wsgi.extensions["switchyard"]
        servers = [self._server(listener, parts.settings) for listener in self.sockets]
        parts.lifecycle.start()
        spare_what_stays()
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._told.wait(1.0)
        self._leave(servers, parts)

    def _server(self, listener, settings) -> Server:
        listener.setblocking(1)
        server = Server(listener, self.wsgi, **server_options(settings, self.worker_connections))
        if self.cfg.workers > 1:
            server.max_accept = 1  # so that the workers share what arrives
        return server

    def _leave(self, servers: list[Server], parts) -> None:
        for server in servers:
            server.close()
        deadline = time.monotonic() + parts.settings.drain_timeout_ms / 1000
        parts.lifecycle.drain(parts.settings.drain_timeout_ms / 1000)
        for server in servers:
            server.stop(timeout=max(LAST_ANSWERS_S, deadline - time.monotonic()))
