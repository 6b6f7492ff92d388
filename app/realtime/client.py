"""Live topics for services in Python, on python-socketio: every message once and in order, or told what is missing.

    client = RealtimeClient("http://switchyard:8080", token=make_token)
    client.subscribe("orders:eu", lambda payload, message: ...)
    client.publish("orders:eu", {"id": 7})

The handler runs in the thread that reads the connection. This file imports nothing of the server, so that it can be copied; it
needs `pip install "python-socketio[client]"`.
"""

import contextlib
import importlib.util
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import socketio

log = logging.getLogger(__name__)

NAMESPACE = "/realtime"
ACK_AFTER_S = 0.1
HOLE_S = 2.0
MAX_EARLY = 512  # messages that came before their turn; more are asked for again
ANSWER_S = 5.0


class ConnectRefused(socketio.exceptions.ConnectionError):
    """The server said no. `answer` is its `{code, message, retryable}`."""

    def __init__(self, answer: dict):
        super().__init__(f"{answer.get('code')}: {answer.get('message')}")
        self.answer = answer


class PublishFailed(Exception):
    """`answer` is the error frame, or None where there was no answer at all in the time given."""

    def __init__(self, answer: dict | None):
        super().__init__(answer["message"] if answer else "no answer")
        self.answer = answer


@dataclass(eq=False)
class _Topic:
    name: str
    handler: Callable[[Any, dict], None]
    on_gap: Callable[[dict], None]
    manner: dict[str, Any]
    epoch: str | None = None
    seq: int | None = None
    early: dict[int, dict] = field(default_factory=dict)
    hole_since: float | None = None
    strange: str | None = None
    has_news: bool = False
    stands: threading.Event = field(default_factory=threading.Event)

    def place(self) -> dict[str, Any]:
        return {**self.manner, **({} if self.seq is None else {"since": self.seq, "epoch": self.epoch})}

    def move(self, epoch: str, seq: int) -> None:
        self.epoch, self.seq, self.hole_since, self.strange = epoch, seq, None, None
        self.early.clear()


class RealtimeClient:
    """`token` is a string or a function, asked at every connect. `on_gap({topic, reason, from?, to?, retryable?})` tells what is missing.
    `sio` stands in for python-socketio's client; `options` are for that one. It waits until it is connected; raises ConnectRefused
    where the server does not take the token."""

    def __init__(self, url: str, token: str | Callable[[], str], sio: Any = None, **options: Any):
        self._token = token
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._resumed: set[_Topic] = set()
        self._refusal: dict | None = None
        self.sio = sio or _stock_client(options)
        self.sio.on("connect", self._connected, namespace=NAMESPACE)
        self.sio.on("connect_error", self._refused, namespace=NAMESPACE)
        self.sio.on("message", self._receive, namespace=NAMESPACE)
        self._connect(url)
        threading.Thread(target=self._tend, name="switchyard-realtime", daemon=True).start()

    def subscribe(self, topic: str, handler: Callable[[Any, dict], None], *, on_gap=lambda gap: None, **manner: Any) -> threading.Event:
        """`handler(payload, {topic, id, seq, ts, epoch})` in order. `manner` is ack, mode and batch of the protocol.

        What is published after the returned event is set arrives; do not wait for it inside a handler.
        """
        state = self._topics[topic] = _Topic(topic, handler, on_gap, manner)
        self._ask(state)
        return state.stands

    def unsubscribe(self, topic: str) -> None:
        if self._topics.pop(topic, None) and self.sio.connected:
            self._emit({"type": "unsubscribe", "topic": topic})

    def publish(self, topic: str, payload: Any, *, id: str | None = None, give_up_s: float = 60.0) -> dict[str, Any]:
        """`{topic, seq, epoch, duplicate?}` once it is in the log; sent again under the same id until then. Raises PublishFailed."""
        frame = {"type": "publish", "topic": topic, "payload": payload, "id": id or uuid.uuid4().hex}
        deadline, attempt = time.monotonic() + give_up_s, 0
        while True:
            answer = self._call(frame)
            if answer is not None and answer["type"] == "ack":
                return answer
            if (answer is not None and not self._may_help(answer)) or time.monotonic() > deadline or self._closed.is_set():
                raise PublishFailed(answer)
            wait_s = (answer or {}).get("retryAfterMs", 0) / 1000 or min(10.0, 0.1 * 2**attempt)
            self._closed.wait(wait_s * random.uniform(1.0, 1.5))
            attempt += 1

    def _may_help(self, answer: dict) -> bool:
        """To send it again: also while an expired token is being renewed."""
        return answer["retryable"] or (answer["code"] == "token_expired" and callable(self._token))

    def close(self) -> None:
        self._closed.set()
        self.sio.shutdown()

    def _auth(self) -> dict[str, Any]:
        token = self._token() if callable(self._token) else self._token
        topics = dict(self._topics)
        self._resumed = set(topics.values())
        return {"token": token, "resume": {name: state.place() for name, state in topics.items()}}

    def _connect(self, url: str) -> None:
        try:
            self.sio.connect(url, namespaces=[NAMESPACE], auth=self._auth, transports=["websocket"], retry=True)
        except socketio.exceptions.ConnectionError as error:
            if self._refusal is None:
                raise
            raise ConnectRefused(self._refusal) from error

    def _refused(self, reason: Any = None) -> None:
        """Either by the server, which says why, or because it is not reached. python-socketio tries again after the first time."""
        answer = reason.get("data") if isinstance(reason, dict) else None
        self._refusal = answer if isinstance(answer, dict) else None
        log.warning("switchyard: not connected: %s", f"{answer['code']}: {answer['message']}" if self._refusal else reason)

    def _connected(self) -> None:
        """Who subscribed since `_auth` was asked, while nothing could be sent, is not forgotten."""
        for state in [state for state in list(self._topics.values()) if state not in self._resumed]:
            self._ask(state)

    def _ask(self, state: _Topic) -> None:
        """Subscribe, or go back to where the topic stands."""
        self._emit({"type": "subscribe", "topic": state.name, **state.place()})

    def _emit(self, frame: dict) -> None:
        with contextlib.suppress(socketio.exceptions.SocketIOError):  # the next connect resumes whatever this was about
            self.sio.emit("message", frame, namespace=NAMESPACE)

    def _call(self, frame: dict) -> dict | None:
        try:
            return self.sio.call("message", frame, namespace=NAMESPACE, timeout=ANSWER_S)
        except socketio.exceptions.SocketIOError:
            return None

    def _receive(self, frame: dict) -> None:
        if frame.get("code") == "token_expired" and callable(self._token):
            self._emit({"type": "auth", "token": self._token()})
        state = self._topics.get(frame.get("topic"))
        if state is None:
            if frame["type"] == "error":
                log.warning("switchyard: %s: %s", frame["code"], frame["message"])
            return
        with self._lock:
            if frame["type"] == "event":
                for event in frame.get("events", [frame]):
                    self._receive_event(state, frame["epoch"], event)
                state.has_news = True
            elif frame["type"] == "ack" and "epoch" in frame:
                state.strange = None
                if state.seq is None or state.epoch != frame["epoch"] or state.seq > frame.get("head", state.seq):
                    state.move(frame["epoch"], frame["seq"])
                state.stands.set()
            elif frame["type"] == "error":
                self._receive_error(state, frame)

    def _receive_event(self, state: _Topic, epoch: str, event: dict) -> None:
        skipped = event.get("skipped")
        if state.seq is None or (state.epoch != epoch and state.seq == 0 and event["seq"] == 1):
            state.move(epoch, (skipped[0] if skipped else event["seq"]) - 1)
        if state.epoch != epoch:
            if state.strange != epoch:
                state.strange = epoch
                self._ask(state)  # nobody told us of it: the server says what is missing
            return
        if skipped:
            self._pass(state, skipped[1])
        if event["seq"] > state.seq and len(state.early) < MAX_EARLY:
            state.early[event["seq"]] = event
        self._close_up(state)

    def _receive_error(self, state: _Topic, frame: dict) -> None:
        gap = {"topic": state.name, "reason": frame["code"]}
        if frame["code"] == "history_gap":
            self._pass(state, frame["to"])
            state.on_gap({**gap, "from": frame["from"], "to": frame["to"], "retryable": frame["retryable"]})
        elif frame["code"] == "epoch_changed":
            if frame.get("epoch") not in (None, state.epoch):
                state.move(frame["epoch"], 0)
            state.on_gap(gap)
        elif frame["code"] == "delivery_failed":
            self._ask(state)
        else:
            log.warning("switchyard: %s on %s: %s", frame["code"], state.name, frame["message"])

    def _pass(self, state: _Topic, last: int) -> None:
        """Nothing up to `last` will come any more, except what is here already."""
        if state.seq is None:
            return
        for seq in sorted(seq for seq in state.early if state.seq < seq <= last):
            self._deliver(state, seq)
        state.seq = max(state.seq, last)
        self._close_up(state)

    def _close_up(self, state: _Topic) -> None:
        while state.seq + 1 in state.early:
            self._deliver(state, state.seq + 1)
        for seq in [seq for seq in state.early if seq <= state.seq]:
            del state.early[seq]
        state.hole_since = (state.hole_since or time.monotonic()) if state.early else None

    def _deliver(self, state: _Topic, seq: int) -> None:
        event = state.early.pop(seq)
        state.seq = seq
        try:
            state.handler(event["payload"], {**event, "topic": state.name, "epoch": state.epoch})
        except Exception:
            log.exception("switchyard: the handler of %s failed", state.name)

    def _tend(self) -> None:
        """Acknowledges what came, all topics in one frame, and asks for holes that do not fill."""
        while not self._closed.wait(ACK_AFTER_S):
            with self._lock:
                news = [state for state in self._topics.values() if state.has_news and state.manner.get("ack") is not False]
                late = [state for state in self._topics.values() if state.hole_since and time.monotonic() - state.hole_since > HOLE_S]
                for state in news:
                    state.has_news = False
                for state in late:
                    state.hole_since = time.monotonic()
            if news:
                self._emit({"type": "ack", "acks": {state.name: state.seq for state in news}})
            for state in late:
                self._ask(state)


def _stock_client(options: dict[str, Any]) -> socketio.Client:
    if importlib.util.find_spec("websocket") is None:  # else it would try for ever, and say nothing
        raise ImportError('RealtimeClient speaks WebSocket through websocket-client: pip install "python-socketio[client]"')
    return socketio.Client(**{"reconnection_delay": 0.25, "reconnection_delay_max": 10, **options})
