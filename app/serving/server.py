"""gevent's WSGI server with gevent-websocket's upgrade, and what the two leave out: a close that is announced, no
access lines with tokens in them, and a stop that does not wait for idle connections.
"""

import contextlib
import socket
from collections.abc import Callable

import gevent
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler


class Handler(WebSocketHandler):
    """One connection. `server.idle` holds those that wait for their next request."""

    def log_request(self):
        """Nothing: an access line would carry `?token=` and `?writeKey=`. The application logs what it refuses."""

    def read_requestline(self):
        self.server.idle.add(self)
        try:
            return super().read_requestline()
        finally:
            self.server.idle.discard(self)

    def finalize_headers(self):
        """Say that the connection will close; clients that are not told reuse it and see it reset."""
        if self.server.closed:
            self.close_connection = True
        super().finalize_headers()
        if self.close_connection and not self.environ.get("wsgi.websocket"):
            self.response_headers.append((b"Connection", b"close"))

    def get_environ(self):
        environ = super().get_environ()
        environ["gunicorn.sock"] = self.socket  # what gunicorn's own handler offers
        environ["RAW_URI"] = self.path
        return environ


class Server(WSGIServer):
    """`close()` stops accepting, lets idle connections go, and then calls `on_close` (the application's drain)."""

    handler_class = Handler
    on_close: Callable[[], None] | None = None

    def __init__(self, *args, **kwargs):
        self.idle: set[Handler] = set()
        super().__init__(*args, **kwargs)

    def close(self):
        first = not self.closed
        super().close()
        if not first:
            return
        for handler in list(self.idle):
            with contextlib.suppress(OSError):  # it went by itself in the meantime
                handler.socket.shutdown(socket.SHUT_RD)
        if self.on_close is not None:
            gevent.spawn(self.on_close)
