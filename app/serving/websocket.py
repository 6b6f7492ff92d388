"""The upgrade to a websocket (RFC 6455, section 4.2), and the websocket object for Engine.IO's gevent driver.

The driver expects gevent-websocket's object, which unmasks and checks UTF-8 byte by byte in Python. This one has the same interface over
websocket_frames.py.
"""

import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING, cast

from gevent.lock import BoundedSemaphore

from app.errors import ApiError
from app.serving import websocket_frames as frames
from app.serving.fairness import TimeSlice, yield_before_large, yield_if_slice_is_over

if TYPE_CHECKING:
    from app.serving.connection import Connection

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ENGINE_IO_PATH = "/socket.io/"
RECV_BYTES = 65_536


def is_websocket(environ: dict) -> bool:
    """Return whether the request opens a websocket where Engine.IO serves them. At other paths the application answers it as usual."""
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(ENGINE_IO_PATH)
        and environ.get("CONTENT_LENGTH", "0") == "0"
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def offer_websocket(connection: "Connection", environ: dict, already_read: bytes) -> "WebSocket | None":
    """Return a websocket that the application may open, and put it into the environ.

    Where the request is no valid opening handshake, answer 400 and return None. `already_read` are the bytes behind the request."""
    accept = _accept(environ)
    server = connection.server
    if accept is None:
        error = ApiError("bad_request", "This is not a valid opening handshake of websocket version 13.")
        connection.socket.sendall(server.render_error("400 Bad Request\r\nSec-WebSocket-Version: 13", error))
        return None
    websocket = WebSocket(environ, connection, accept, already_read)
    environ["wsgi.websocket"], environ["wsgi.websocket_version"] = websocket, websocket.version
    return websocket


def has_opened(environ: dict) -> bool:
    """Return whether the application has opened the websocket of this request."""
    websocket = environ.get("wsgi.websocket")
    return websocket is not None and websocket.has_opened


def _accept(environ: dict) -> str | None:
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").encode("latin-1")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if not is_key or environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        return None
    return base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()  # noqa: S324 - the RFC's own choice


class WebSocket:
    """Sends and receives the messages of one client, after `open`.

    `receive` yields to other greenlets where a client always has another message; see fairness.py."""

    def __init__(self, environ: dict, connection: "Connection", accept: str, already_read: bytes):
        server = connection.server
        self.version = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        self.path = environ["PATH_INFO"]
        self.origin = environ.get("HTTP_ORIGIN")
        self.protocol = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
        self.socket = connection.socket
        self.has_opened = False
        self.closed = False
        self._accept = accept
        self._buffer_bytes = server.websocket_buffer_bytes
        self._reader = frames.MessageReader(server.max_body_bytes)
        self._reader.feed(already_read)
        self._time_slice = TimeSlice.of_cpu_time()
        self._unfinished = connection.unfinished
        self._unfinished.is_in_work, self._unfinished.drop = False, self._drop
        self._drop_connection = connection.drop
        self._limit = server.unfinished
        self.admit_control: Callable[[], bool] = lambda: True  # returns whether the client may send one more ping or pong
        self._writing = BoundedSemaphore(1)  # so that a pong is not sent in the middle of another frame

    def open(self, *headers: tuple[str, str]) -> None:
        """Answer 101 with the given headers. Before this call the application can still answer with an HTTP error."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {self._accept}\r\n"
        self.has_opened = True
        self.socket.sendall(f"{head}{more}\r\n".encode())
        if self._buffer_bytes:
            self.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, self._buffer_bytes)

    def identify(self, party: str) -> None:
        """Count the client's unfinished messages as those of `party` from now on; see unfinished_bytes.py."""
        self._limit.identify(self._unfinished, party, True)

    def limit_messages(self, max_bytes: int) -> None:
        """Limit the size of the next message and all later ones.

        A longer message closes the websocket as soon as the head of its frame has arrived."""
        self._reader.max_bytes = max_bytes

    def receive(self) -> str | bytes | None:
        """Wait for the next message and return it. Return None when the websocket has closed."""
        try:
            while not self.closed:
                if size := self._reader.ready_bytes:
                    yield_before_large(size)
                    yield_if_slice_is_over(size)
                found = self._reader.next()
                self._time_slice.yield_if_over()  # also before a message is complete: a read that finds bytes does not wait
                if found is None:
                    self._hold()
                    self._read_more()
                    continue
                if found[0] in (frames.TEXT, frames.BINARY):
                    return found[1]
                self._control(found[0], cast(bytes, found[1]))
        except frames.FrameError as error:
            self.close(error.close_code)
        except OSError:
            if self._unfinished.is_dropped:
                self.close(frames.TRY_AGAIN_LATER)
            self.closed = True
        return None

    def send(self, message: str | bytes) -> None:
        """Send a message, and return when the kernel has taken all of it. Raises OSError where the client has disconnected."""
        if isinstance(message, str):
            self._send(frames.encode(frames.TEXT, message.encode("utf-8", "replace")))
        else:
            self._send(frames.encode(frames.BINARY, bytes(message)))

    def close(self, code: int = frames.NORMAL) -> None:
        """Close the websocket with a close frame, or without one where another greenlet is sending a frame."""
        if self.closed or not self.has_opened:
            return
        self.closed = True
        if self._writing.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self.socket.sendall(frames.encode(frames.CLOSE, code.to_bytes(2, "big")))
            self._writing.release()

    def _hold(self) -> None:
        """Count the bytes of a message that is not complete yet. Raises OSError where the limit of unfinished bytes dropped them."""
        size = self._reader.unfinished_bytes
        if size != self._unfinished.bytes:
            self._limit.resize(self._unfinished, size, time.monotonic())
        if self._unfinished.is_dropped:
            raise ConnectionAbortedError("the unfinished message was dropped, because others need its memory")

    def _drop(self) -> None:
        self._reader.discard()
        self._drop_connection()

    def _read_more(self) -> None:
        started = time.monotonic()
        data = self.socket.recv(RECV_BYTES)
        self._time_slice.restart_if_waited(started)
        self._reader.feed(data)
        self.closed = self.closed or not data

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.CLOSE:
            self.close(frames.close_code(payload))
        elif self.admit_control() and opcode == frames.PING:
            self._send(frames.encode(frames.PONG, payload))

    def _send(self, frame: bytes) -> None:
        if self.closed:
            raise ConnectionError("the websocket is closed")
        with self._writing:
            sent = self.socket.send(frame)
            if sent < len(frame):
                self.socket.sendall(frame[sent:])  # sendall asks for the buffer's size first, which a small frame does not need
