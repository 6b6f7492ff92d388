"""gunicorn's gevent worker with our server in it. gunicorn.conf.py names this class."""

from functools import partial

from gunicorn.workers.ggevent import GeventPyWSGIWorker

from app.serving.server import Handler, Server


class Worker(GeventPyWSGIWorker):
    """The application is loaded after the fork; so its background work starts here, in the worker that it serves."""

    wsgi_handler = Handler

    def server_class(self, *args, **kwargs):
        parts = self.wsgi.extensions["switchyard"]
        server = Server(*args, **kwargs)
        server.on_close = partial(parts.lifecycle.drain, parts.settings.drain_timeout_ms / 1000)
        parts.lifecycle.start()
        return server
