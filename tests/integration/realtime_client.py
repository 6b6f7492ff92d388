"""python-socketio's own client, with its frames in a list to wait on."""

import contextlib
import select
import threading
import time

import socketio
import websocket


class Client:
    """A connected client: `frames` are the `message` events it got, `others` all other events as (name, data)."""

    def __init__(self, url, token=None, transports=("websocket",), namespace="/realtime", **options):
        self.namespace = namespace
        self.frames, self.others, self.refusal, self.connects = [], [], None, 0
        self._changed = threading.Condition()
        self.sio = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0)
        for event, handler in (("message", self._on_message), ("*", self._on_other), ("connect", self._on_connect)):
            self.sio.on(event, handler, namespace=namespace)
        self.sio.on("connect_error", self._on_refusal, namespace=namespace)
        options = {"auth": {"token": token} if token else None, "wait_timeout": 5, **options}
        try:
            self.sio.connect(url, namespaces=[namespace], transports=list(transports), **options)
        except socketio.exceptions.ConnectionError:
            if self.refusal is None:
                raise

    @property
    def transport(self):
        return self.sio.transport()

    def say(self, **frame):
        """The answer that the callback got."""
        return self.sio.call("message", frame, namespace=self.namespace, timeout=5)

    def emit(self, event, *arguments):
        self.sio.emit(event, arguments, namespace=self.namespace)

    def wait(self, is_there, within_s=5):
        """What `is_there(client)` returns, as soon as it is something."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while not (found := is_there(self)):
                left = deadline - time.monotonic()
                assert left > 0, f"it did not come within {within_s} s; these did: {self.frames} {self.others}"
                self._changed.wait(left)
            return found

    def wait_for(self, kind, count=1):
        """The first `count` frames of this type; for one, the frame itself."""
        found = self.wait(lambda client: [found] if len(found := client.of(kind)) >= count else None)[0][:count]
        return found[0] if count == 1 else found

    def of(self, kind):
        return [frame for frame in self.frames if frame["type"] == kind]

    def payloads(self):
        return [frame["payload"] for frame in self.of("event")]

    def is_alive(self):
        """After a round trip everything that was sent before has been handled."""
        return isinstance(self.sio.call("ping", namespace=self.namespace, timeout=5)["ts"], int)

    def close(self):
        """A polling client goes without a word: its good-bye gets lost where its writer is just busy, and then it waits
        for an answer until the next ping."""
        if self.sio.connected and self.transport == "polling":
            self.sio.eio.disconnect(abort=True)
        self.sio.shutdown()

    def _note(self, place, what):
        with self._changed:
            place.append(what)
            self._changed.notify_all()

    def _on_message(self, frame):
        self._note(self.frames, frame)

    def _on_other(self, event, *data):
        self._note(self.others, (event, *data))

    def _on_connect(self):
        with self._changed:
            self.connects += 1
            self._changed.notify_all()

    def _on_refusal(self, data):
        with self._changed:
            self.refusal = data
            self._changed.notify_all()


def flood(connection, packets, within_s=10):
    """What comes back on a bare websocket while the packets are sent without end, until it is closed; and how long that took."""
    data = b"".join(websocket.ABNF.create_frame(packet, websocket.ABNF.OPCODE_TEXT).format() for packet in packets)
    texts, rest, started, can_send = [], data, time.monotonic(), True
    with contextlib.suppress(ConnectionError, websocket.WebSocketConnectionClosedException):
        while time.monotonic() < started + within_s:
            readable, writable, _ = select.select([connection.sock], [connection.sock] if can_send else [], [], 1)
            if writable:
                connection.sock.setblocking(False)
                try:
                    rest = rest[connection.sock.send(rest) :] or data
                except ConnectionError:
                    can_send = False  # what came before that can still be read
                connection.sock.setblocking(True)
            if readable and not (texts.append(connection.recv()) or texts[-1]):
                break
    return texts, time.monotonic() - started
