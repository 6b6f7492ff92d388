"""The upgrade to a websocket (RFC 6455, section 4.2) and the websocket that Engine.IO's gevent driver is given then.

It expects gevent-websocket's; that one takes masks off and checks UTF-8 byte by byte in Python, so this one has the same
face over frames.py.
"""

import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET

from gevent.lock import BoundedSemaphore

from app.errors import ApiError
from app.serving import websocket_frames as frames
from app.serving.fairness import TimeSlice, yield_before_large, yield_if_slice_is_over

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ENGINE_IO_PATH = "/socket.io/"
RECV_BYTES = 65_536


def is_websocket(environ: dict) -> bool:
    """Only where Engine.IO listens: anywhere else the wish is passed over, and the application answers."""
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and environ["REQUEST_METHOD"] == "GET"
        and environ["PATH_INFO"].startswith(ENGINE_IO_PATH)
        and environ.get("CONTENT_LENGTH", "0") == "0"
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def offer_websocket(connection, environ: dict, already_read: bytes) -> "WebSocket | None":
    """Puts a websocket into the environ, which the application may open. None, and an answer, where the request is no opening."""
    accept = _accept(environ)
    server = connection.server
    if accept is None:
        error = ApiError("bad_request", "This is not the opening of a websocket of version 13.")
        connection.socket.sendall(server.render_error("400 Bad Request\r\nSec-WebSocket-Version: 13", error))
        return None
    websocket = WebSocket(environ, connection, accept, already_read)
    environ["wsgi.websocket"], environ["wsgi.websocket_version"] = websocket, websocket.version
    return websocket


def has_opened(environ: dict) -> bool:
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
    """Messages over one socket, after `open`. A client that always has more to say is held to its turn; see turns.py."""

    def __init__(self, environ: dict, connection, accept: str, already_read: bytes):
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
        self._holding = connection.holding
        self._holding.is_in_work, self._holding.drop = False, self._lose
        self._lose_connection = connection.lose
        self._unfinished = server.unfinished
        self.admit_control: Callable[[], bool] = lambda: True  # whether one more ping or pong of the client is within its rate
        self._writing = BoundedSemaphore(1)  # the answer to a ping must not get into the middle of a frame

    def open(self, *headers: tuple[str, str]) -> None:
        """Answers 101. Until then the application can still refuse, in words of HTTP."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {self._accept}\r\n"
        self.has_opened = True
        self.socket.sendall(f"{head}{more}\r\n".encode())
        if self._buffer_bytes:
            self.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, self._buffer_bytes)

    def identify(self, party: str) -> None:
        """The client has said who it is: what is unfinished of its messages counts for `party`, and not among strangers'."""
        self._unfinished.identify(self._holding, party, True)

    def limit_messages(self, max_bytes: int) -> None:
        """From the next message on. A longer one closes the websocket as soon as the head of its frame says so."""
        self._reader.max_bytes = max_bytes

    def receive(self) -> str | bytes | None:
        """The next message; None when there will be none, whoever ended it."""
        try:
            while not self.closed:
                if size := self._reader.ready_bytes:
                    yield_before_large(size)
                    yield_if_slice_is_over(size)
                found = self._reader.next()
                self._time_slice.yield_if_over()  # also where nothing is whole yet: a read that finds something waits for nobody
                if found is None:
                    self._hold()
                    self._read_more()
                    continue
                if found[0] in (frames.TEXT, frames.BINARY):
                    return found[1]
                self._control(*found)
        except frames.FrameError as error:
            self.close(error.close_code)
        except OSError:
            if self._holding.is_dropped:
                self.close(frames.TRY_AGAIN_LATER)
            self.closed = True
        return None

    def send(self, message: str | bytes) -> None:
        """Waits until the system has taken all of it. Raises OSError where the client has gone."""
        if isinstance(message, str):
            self._send(frames.encode(frames.TEXT, message.encode("utf-8", "replace")))
        else:
            self._send(frames.encode(frames.BINARY, bytes(message)))

    def close(self, code: int = frames.NORMAL) -> None:
        """Says so, unless somebody is in the middle of a frame: then there is no place left to say it."""
        if self.closed or not self.has_opened:
            return
        self.closed = True
        if self._writing.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self.socket.sendall(frames.encode(frames.CLOSE, code.to_bytes(2, "big")))
            self._writing.release()

    def _hold(self) -> None:
        """Raises OSError where others need the room that the unfinished message takes."""
        size = self._reader.unfinished_bytes
        if size != self._holding.bytes:
            self._unfinished.resize(self._holding, size, time.monotonic())
        if self._holding.is_dropped:
            raise ConnectionAbortedError("too much of it was unfinished for too long")

    def _lose(self) -> None:
        self._reader.discard()
        self._lose_connection()

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
                self.socket.sendall(frame[sent:])  # it asks for the buffer's size first, which a small frame need not
