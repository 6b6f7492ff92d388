"""The client: its face, its state, and what its parts ask of one another."""

import json
import logging
import math
import uuid
from collections.abc import Callable
from typing import Any

import socketio

from .connection import NAMESPACE, Connection
from .errors import ConnectRefused, PublishFailed, bad_request, is_place, is_seq, unavailable
from .requests import FRAME_BYTES, PING_S, Request, Requests
from .subscriptions import GIVE_UP_S, Subscriptions
from .threads import Outcome, Subscription, Threads, Timers, backoff
from .topic import Listener, Topic

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # publishes that wait; one more fails with limit_exceeded


class RealtimeClient:
    """`token` is a string or a function, asked at every connect and when the token expires.

    `on_state(state, detail)` reports connecting, live, offline, refused, closed; `on_error(error)` what is wrong with a topic or an answer.
    `options` are those of python-socketio's client; `sio` stands in for that client. `max_frame_bytes` is what the server takes: its
    HTTP_MAX_BODY_BYTES. The constructor waits until it is connected, for at most `give_up_s`; raises ConnectRefused, also where the server
    does not take the token.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str],
        sio: Any = None,
        *,
        on_state: Callable[[str, Any], None] = lambda state, detail: None,
        on_error: Callable[[dict], None] | None = None,
        give_up_s: float = GIVE_UP_S,
        max_frame_bytes: int = 512_000,
        threads: Threads | None = None,
        **options: Any,
    ):
        self.threads = threads or Threads()
        self._token, self._max_frame_bytes = token, max_frame_bytes
        self._on_state, self._on_error = on_state, on_error or _log_error
        self.lock = self.threads.lock()
        self.timers = Timers(self.threads)
        self.requests = Requests(self, self.threads, self.timers)
        self.subscriptions = Subscriptions(self)
        self.connection_number, self.is_live, self.state = 0, False, ""  # another number for each connection
        self.reason: dict | None = None  # why the server refused the last connection
        self._over: dict | None = None  # why there will be no other
        self._is_renewing, self._renew_timer = False, None
        self._first = Outcome(self.threads.event())
        self._connection = Connection(self, url, sio, options)
        self._set_state("connecting", None)
        loops = {"connection": self._connection.run, "timers": self._run_timers, "handlers": self.subscriptions.calls.run}
        for name, loop in loops.items():
            self.threads.start(loop, name)
        self._wait_for_first(give_up_s)

    @property
    def sio(self) -> Any:
        """python-socketio's client of the present connection."""
        return self._connection.sio

    def _wait_for_first(self, give_up_s: float) -> None:
        if not self._first._event.wait(None if math.isinf(give_up_s) else give_up_s):
            with self.lock:
                self._first.settle(self.why())
        if self._first.error is not None:
            self.close()
            raise ConnectRefused(self._first.error)

    def subscribe(
        self,
        topic: str,
        handler: Callable[[Any, dict], None],
        *,
        on_gap: Callable[[dict], None] = lambda gap: None,
        since: int | None = None,
        epoch: str | None = None,
        give_up_s: float = GIVE_UP_S,
        **manner: Any,
    ) -> Subscription:
        """`handler(payload, {topic, id, seq, ts, epoch})` in order; `on_gap({topic, reason, from?, to?, retryable?})` reports gaps.

        `manner` is ack, mode and batch of the protocol; `since` and `epoch` continue from a place. What is published after the returned
        Subscription is done arrives; where it is not done within `give_up_s`, it fails, and the subscription is still wanted.
        """
        manner = {name: value for name, value in manner.items() if name in ("ack", "mode", "batch") and value is not None}
        listener = Listener(handler, on_gap, manner, epoch, since)
        listener.outcome = Subscription(self.threads.event(), lambda: self.subscriptions.leave(topic, listener))
        with self.lock:
            refusal = self._over or _wrong_subscription(topic, since, epoch)
            if refusal:
                listener.outcome.settle(refusal)
                return listener.outcome
            listener.deadline = self.timers.set(give_up_s, lambda: listener.outcome.settle(self.why()))
            self.subscriptions.add(topic, listener)
        return listener.outcome

    def unsubscribe(self, topic: str) -> Outcome:
        """Ends all subscriptions to the topic. Done when the server has ended them, or the connection has ended."""
        with self.lock:
            state = self.subscriptions.topics.get(topic)
            lefts = [self.subscriptions.leave(topic, listener) for listener in list(state.listeners)] if state else []
        return lefts[-1] if lefts else self.subscriptions.done()

    def publish(self, topic: str, payload: Any, *, id: str | None = None, give_up_s: float = GIVE_UP_S) -> dict[str, Any]:
        """`{seq, epoch, duplicate?}` once it is in the log; sent again under the same id until then. Raises PublishFailed."""
        outcome = Outcome(self.threads.event())
        with self.lock:
            refusal = self._over or self._publish(topic, payload, id, give_up_s, outcome)
        if refusal:
            raise PublishFailed(refusal)
        outcome._event.wait()
        if outcome.error is not None:
            raise PublishFailed(outcome.error)
        return {name: outcome.answer[name] for name in ("seq", "epoch", "duplicate") if name in outcome.answer}

    def _publish(self, topic: str, payload: Any, id: str | None, give_up_s: float, outcome: Outcome) -> dict | None:
        """The answer where it cannot be sent at all."""
        try:
            text = json.dumps({"type": "publish", "topic": topic, "payload": payload, "id": id or uuid.uuid4().hex}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return bad_request(f"payload must be JSON: {error}.")
        if self.is_too_large(len(text)):
            return self.too_large()
        if len(self.requests.queue) >= MAX_WAITING:
            return {**unavailable(f"{MAX_WAITING} requests wait already."), "code": "limit_exceeded"}
        request = Request(json.loads(text), outcome.settle, outlives=True, bytes=len(text), accepts=is_place)
        self.requests.add(request, give_up_s)
        self.requests.pump()
        return None

    def position(self, topic: str) -> dict[str, Any] | None:
        """The last position of a topic, to continue from later: `{since, epoch}`."""
        with self.lock:
            state = self.subscriptions.topics.get(topic)
            return {"since": state.seq, "epoch": state.epoch} if state and state.seq is not None else None

    def close(self) -> None:
        """Ends everything; whatever waits fails with `closed`, and handlers that have not begun are not called."""
        with self.lock:
            self.subscriptions.send_acks()
            self.end({"code": "closed", "message": "closed", "retryable": False})
        self._connection.closed.wait(2.0)

    # The connection

    def _set_state(self, state: str, detail: Any) -> None:
        if self.state != state or state == "refused":
            self.state = state
            self.subscriptions.call(self._on_state, state, detail)

    def report(self, error: dict, topic: Topic | None = None) -> None:
        if topic or not self.subscriptions.is_full():
            self.subscriptions.call(self._on_error, {**error, "topic": topic.name} if topic else error)

    def why(self) -> dict:
        """Why something that waits is given up."""
        return self.reason or unavailable("There is no answer." if self.is_live else "There is no connection.")

    def _run_timers(self) -> None:
        while not self._connection.ended.is_set():
            with self.lock:
                self.timers.changed.clear()
                due_in = self.timers.run_due()
            self.timers.changed.wait(due_in)

    def ask_token(self) -> str:
        return self._token() if callable(self._token) else self._token

    def auth(self, token: str) -> dict[str, Any]:
        with self.lock:
            return {"token": token, "resume": self.subscriptions.resume()}

    def connected(self) -> None:
        if self._over:
            self._connection.wake.set()
            return
        self.is_live, self.reason = True, None
        self.requests.connected(self._connection.ping_s() or PING_S)
        self._set_state("live", None)
        self._first.settle(None)
        self.subscriptions.connected()
        self.requests.pump()

    def lost(self, reason: str) -> None:
        """The connection is gone, and with it all that was asked for on it."""
        with self.lock:
            self.connection_number += 1
            self.is_live = self._is_renewing = False
            self.timers.cancel(self._renew_timer)
            self.requests.disconnected()
            self.subscriptions.disconnected()
            if self.state not in ("closed", "refused"):
                self._set_state("offline", reason)

    def refused(self, reason: Any = None) -> None:
        """Either by the server, which says why, or because it is not reached."""
        answer = reason.get("data") if isinstance(reason, dict) else None
        if not isinstance(answer, dict) or not isinstance(answer.get("code"), str):
            log.warning("switchyard: not connected: %s", reason)
            return
        log.warning("switchyard: not connected: %s: %s", answer["code"], answer.get("message"))
        self.reason = answer
        self._set_state("refused", answer)
        may_help = bool(answer.get("retryable")) or (callable(self._token) and answer["code"] != "forbidden")
        if not may_help or not (self._first._event.is_set() or self.may_help(answer)):
            self._first.settle(answer)
            self._give_up(answer)

    def restart(self, reason: str) -> None:
        log.warning("switchyard: a new connection: %s", reason)
        self._connection.wake.set()

    def _give_up(self, error: dict) -> None:
        self._over = error
        self.requests.end(error)
        self.subscriptions.end(error)
        self._connection.ended.set()
        self._connection.wake.set()

    def end(self, reason: dict) -> None:
        if self.state == "closed":
            return
        self._set_state("closed", reason)
        self._give_up(reason)
        self.lost("closed")
        self._first.settle(reason)
        self.subscriptions.calls.stop()
        self.timers.changed.set()

    # What goes out

    def emit(self, frame: dict, callback: Callable | None = None) -> None:
        try:
            self._connection.sio.emit("message", frame, namespace=NAMESPACE, callback=callback)
        except socketio.exceptions.SocketIOError:
            pass  # the connection has just ended
        except Exception:
            log.exception("switchyard: a frame could not be sent")

    def may_help(self, answer: dict, renews: bool = True) -> bool:
        """To send it again: also while an expired token is being renewed."""
        return answer.get("retryable") is True or (answer["code"] == "token_expired" and callable(self._token) and renews)

    def is_too_large(self, size: int) -> bool:
        return size + FRAME_BYTES > self._max_frame_bytes

    def too_large(self) -> dict:
        message = f"The server takes no message of more than {self._max_frame_bytes} bytes."
        return {"type": "error", "code": "payload_too_large", "message": message, "retryable": False}

    def renew_token(self) -> None:
        """In a thread of its own: the function is the caller's and may take its time."""
        if callable(self._token) and self.is_live and not self._is_renewing:
            self._is_renewing = True
            connection = self.connection_number
            self.threads.start(lambda: self._renew(connection), "token")

    def _renew(self, connection: int) -> None:
        try:
            token, failure = self.ask_token(), None
        except Exception as error:  # the caller's function
            token, failure = None, unavailable(f"The token function failed: {error}")
        with self.lock:
            if connection != self.connection_number:
                return  # the connection has changed
            if failure:
                self._renewed(failure, None)
            else:
                frame, is_right = {"type": "auth", "token": token}, lambda answer: answer.get("ok") is True
                self.requests.add(Request(frame, self._renewed, renews=False, accepts=is_right))
                self.requests.pump()

    def _renewed(self, error: dict | None, _answer: dict | None) -> None:
        if error and error["code"] == "forbidden":
            self.restart("the token is of another user")
        elif error:
            self.report(error)
            self._renew_timer = self.timers.set(backoff(2), self._renew_again)
        else:
            self._is_renewing = False
            self.requests.wake()

    def _renew_again(self) -> None:
        self._is_renewing = False
        self.renew_token()


def _wrong_subscription(topic: Any, since: Any, epoch: Any) -> dict | None:
    if not isinstance(topic, str) or not 0 < len(topic) <= 255:
        return bad_request("A topic is a string of 1 to 255 characters.")
    if not (since is None or (is_seq(since) and since >= 0)) or not (epoch is None or isinstance(epoch, str)):
        return bad_request("since is a whole number from 0 and epoch a string, as `position` gives them.")
    return None


def _log_error(error: dict) -> None:
    log.warning("switchyard: %s: %s", " on ".join(filter(None, (error.get("code"), error.get("topic")))), error.get("message"))
