"""gunicorn's gevent worker with our server in it. gunicorn.conf.py names this class."""

from functools import partial

from gunicorn.workers.ggevent import GeventWorker

from app.serving.server import Server


class Worker(GeventWorker):
    """The application is loaded after the fork; so its background work starts here, in the worker that it serves."""

    def server_class(self, listener, *, application, spawn, environ, log, handler_class, **tls):
        parts = application.extensions["switchyard"]
        settings = parts.settings
        server = Server(
            listener, application, max_body_bytes=settings.http_max_body_bytes, keepalive_s=self.cfg.keepalive, spawn=spawn, **tls
        )
        server.on_close = partial(parts.lifecycle.drain, settings.drain_timeout_ms / 1000)
        if self.cfg.workers > 1:
            server.max_accept = 1  # so that the workers share what arrives
        parts.lifecycle.start()
        return server
