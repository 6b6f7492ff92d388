"""Connects, again and again, on python-socketio: a new client of it for each connection, so that nothing of an old one is left over."""

import contextlib
import importlib.util
import json
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import engineio
import engineio.payload
import socketio

from .errors import unavailable
from .requests import SLOWEST
from .threads import backoff

if TYPE_CHECKING:
    from .realtime_client import RealtimeClient

log = logging.getLogger(__name__)

NAMESPACE = "/realtime"
JOIN_S = 10.0  # for the server to let the connection in
STANDS_S = 5.0  # a connection that ends earlier is followed by a longer wait than the one before
# The answer to one poll carries all that waits, hundreds of messages after a resume; by default python-engineio ends the connection
# at the seventeenth.
engineio.payload.Payload.max_decode_packets = 10_000
RECONNECTING = {"reconnection": True, "reconnection_attempts": 0, "reconnection_delay": 0.25, "reconnection_delay_max": 10.0}


class Connection:
    """`given` stands in for python-socketio's client. `wake` ends the connection that there is, `ended` all attempts."""

    def __init__(self, client: "RealtimeClient", url: str, given: Any, options: dict[str, Any]):
        self._client, self._url, self._given, self._threads = client, url, given, client.threads
        self._options = options if given is None else {name: getattr(given, name, value) for name, value in RECONNECTING.items()}
        if given is not None:
            given.reconnection = False  # it would connect again with a limit of one second
        self.sio = given or _stock_client(options)
        self.wake, self.ended, self.closed = (self._threads.event() for _ in range(3))
        self._joined_at = 0.0

    def run(self) -> None:
        """Connects until it is closed. A way that fails without a word of the server is tried next time by the other transport."""
        transports = [["websocket"], ["polling"]] if importlib.util.find_spec("requests") or self._given else [["websocket"]]
        options = {**RECONNECTING, **self._options}
        most = options["reconnection_attempts"] or math.inf if options["reconnection"] else 0
        first_s, most_s = options["reconnection_delay"], options["reconnection_delay_max"]
        failures = falls = 0
        while not self.ended.is_set():
            has_joined, was_refused = self._attempt(transports[0])
            failures = 0 if has_joined else failures + 1
            falls = 1 if has_joined and self._has_stood() else falls + 1
            if not has_joined and not was_refused:
                transports.append(transports.pop(0))
            if failures > most or (has_joined and not most):
                with self._client.lock:
                    self._client.end(self._client.reason or unavailable("All attempts to connect are used up."))
            if not self.ended.is_set():
                self.ended.wait(backoff(falls - 1, first_s, most_s))
        self.closed.set()

    def _has_stood(self) -> bool:
        return self._threads.now() - self._joined_at >= STANDS_S

    def _attempt(self, transports: list[str]) -> tuple[bool, bool]:
        """One connection, until it ends: whether the server let it in, and whether the server refused it."""
        self._client.reason = None
        try:
            token = self._client.ask_token()
        except Exception as error:  # the caller's function
            self._client.lost(f"no token: {error}")
            self._client.report(unavailable(f"The token function failed: {error}"))
            return False, True
        with self._client.lock:
            self._client.connection_number += 1
            connection = self._client.connection_number
            sio = self.sio = self._given or _stock_client(self._options)
            if self._given is None:
                sio.eio.heard = self._client.requests.heard
            self.wake.clear()
        for event, handle in self._handlers(connection).items():
            sio.on(event, handle, namespace=NAMESPACE)
        try:
            auth = partial(self._client.auth, token)
            wait_s = JOIN_S + len(json.dumps(self._client.auth(token))) / SLOWEST
            sio.connect(self._url, namespaces=[NAMESPACE], auth=auth, transports=transports, wait_timeout=wait_s)
            self._joined_at = self._threads.now()
        except Exception as error:  # whatever it is, this thread tries again
            self._client.lost(str(error))
            self._hang_up(sio)
            return False, self._client.reason is not None
        while not self.wake.wait(1.0) and _is_open(sio):
            pass
        self._client.lost("transport close")
        self._hang_up(sio)
        return True, False

    def _handlers(self, connection: int) -> dict[str, Callable]:
        """Of one connection: what an old one still has to say is passed over."""

        def only_now(handle: Callable) -> Callable:
            def handled(*arguments: Any) -> None:
                with self._client.lock:
                    if connection == self._client.connection_number:
                        handle(*arguments)

            return handled

        return {
            "connect": only_now(self._client.connected),
            "connect_error": only_now(self._client.refused),
            "disconnect": only_now(lambda *_: self.wake.set()),
            "message": only_now(self._client.subscriptions.receive),
        }

    def ping_s(self) -> float | None:
        """Between two pings of the server, as the handshake named it."""
        return getattr(getattr(self.sio, "eio", None), "ping_interval", None)

    def _hang_up(self, sio: Any) -> None:
        """In a thread of its own, since a polling client waits for its last answer; at the end in this one, before the process is gone."""
        if sio is self._given:
            with contextlib.suppress(Exception):
                sio.disconnect()
        elif _is_open(sio) and not self.ended.is_set():
            self._threads.start(partial(_throw_away, sio), "hang-up")
        else:
            _throw_away(sio)


def _is_open(sio: Any) -> bool:
    eio = getattr(sio, "eio", None)
    return sio.connected if eio is None else eio.state != "disconnected"


def _throw_away(sio: socketio.Client) -> None:
    """With its sockets, which it would leave to the collector."""
    websocket, http = sio.eio.ws, sio.eio.http if not sio.eio.external_http else None
    for close in (sio.disconnect, getattr(websocket, "shutdown", None), getattr(http, "close", None)):
        with contextlib.suppress(Exception):
            close()


class _Reader(engineio.Client):
    """Handles packets in the thread that reads them. The stock client starts a thread for each, which reorders them and knows no limit.
    `heard` is called for each, pings too. A body gets the time that it takes on a slow link."""

    heard: Callable[[], None] = staticmethod(lambda: None)

    def _receive_packet(self, pkt: Any) -> None:
        self.heard()
        super()._receive_packet(pkt)

    def _send_request(self, method: str, url: str, headers: Any = None, body: Any = None, timeout: float | None = None) -> Any:
        return super()._send_request(method, url, headers, body, timeout and timeout + len(body or "") / SLOWEST)

    def start_background_task(self, target: Callable, *args: Any, **kwargs: Any) -> Any:
        is_disconnect = args and isinstance(args[0], str) and args[0].startswith("1")  # its handler waits for the thread that reads
        if target is not self.handlers.get("message") or is_disconnect:
            return super().start_background_task(target, *args, **kwargs)
        try:
            target(*args, **kwargs)
        except Exception:
            log.exception("switchyard: a packet could not be handled")
        return None


class _Stock(socketio.Client):
    def _engineio_client_class(self) -> type:
        return _Reader


def _stock_client(options: dict[str, Any]) -> socketio.Client:
    if importlib.util.find_spec("websocket") is None:  # else it would try for ever, and say nothing
        raise ImportError('RealtimeClient speaks WebSocket through websocket-client: pip install "python-socketio[client]"')
    return _Stock(**{"request_timeout": JOIN_S, **options, "reconnection": False})
