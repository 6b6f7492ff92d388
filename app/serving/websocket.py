"""The upgrade to a websocket (RFC 6455, section 4.2), handed to gevent-websocket, which Engine.IO expects."""

import base64
import binascii
import hashlib

from geventwebsocket.logging import create_logger
from geventwebsocket.websocket import WebSocket

from app.errors import ApiError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ENGINE_IO_PATH = "/socket.io/"
LOGGER = create_logger(__name__)


def is_websocket(environ: dict) -> bool:
    """Only where Engine.IO listens: anywhere else the wish is passed over, and the application answers."""
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(ENGINE_IO_PATH)
        and environ.get("CONTENT_LENGTH", "0") == "0"
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def run_websocket(connection, environ: dict, already_read: bytes) -> None:
    """Answers 101 and calls the application with `wsgi.websocket`; returns when the websocket has ended."""
    accept = _accept(environ)
    if accept is None:
        error = ApiError("bad_request", "This is not the opening of a websocket of version 13.")
        connection.socket.sendall(connection.server.render_error("400 Bad Request\r\nSec-WebSocket-Version: 13", error))
        return
    head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    connection.socket.sendall(head.encode())
    stream = _Stream(connection.socket, already_read, connection.server.max_frame_bytes)
    websocket = WebSocket(environ, stream, _Handler(connection))
    environ["wsgi.websocket"] = websocket
    environ["wsgi.websocket_version"] = "13"
    try:
        result = connection.server.application(environ, lambda status, headers, exc_info=None: None)
        if hasattr(result, "close"):
            result.close()
    except OSError:
        return  # the client has gone
    finally:
        if not websocket.closed:
            websocket.close()


def _accept(environ: dict) -> str | None:
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").encode("latin-1")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if not is_key or environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        return None
    return base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()  # noqa: S324 - the RFC's own choice


class _Handler:
    """The part of a gevent-websocket handler that its WebSocket asks for."""

    def __init__(self, connection):
        self.server = connection.server
        self.socket = connection.socket
        self.logger = LOGGER


class _Stream:
    """`read(n)` gives n bytes, fewer only at the end; what came together with the upgrade is read first.

    A frame longer than `max_bytes` ends the connection: gevent-websocket would collect whatever length a client claims.
    """

    def __init__(self, sock, already_read: bytes, max_bytes: int):
        self._socket = sock
        self._buffer = already_read
        self._max_bytes = max_bytes
        self.write = sock.sendall
        self.handler = None

    def read(self, count: int) -> bytes:
        if count > self._max_bytes:
            raise ConnectionError(f"a frame of {count} bytes")
        while len(self._buffer) < count:
            data = self._socket.recv(max(4096, min(65_536, count - len(self._buffer))))
            if not data:
                break
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
