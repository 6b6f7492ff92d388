"""The topics that are wanted, and what the server was asked for: one place compares them, so that each is live or somebody was told.

What comes in of a topic arrives here, and leaves as calls of handlers and as acknowledgements.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import is_place
from .requests import ANSWER_S, PING_S, RESUMED, Request
from .threads import Calls, Outcome
from .topic import Listener, Topic

if TYPE_CHECKING:
    from .realtime_client import RealtimeClient

log = logging.getLogger(__name__)

ACK_AFTER_S = 0.1
GIVE_UP_S = 60.0
MAX_CALLS = 4096  # of handlers, that wait for the one before
MAX_RESUMED = 128  # topics that are resumed with the connection; the others are asked for one by one
REFUSALS = ("forbidden", "bad_request", "limit_exceeded")  # of a subscription; asking again would not help


class Subscriptions:
    def __init__(self, client: "RealtimeClient"):
        self._client = client
        self.timers = client.timers
        self.calls = Calls(client.threads)
        self.topics: dict[str, Topic] = {}
        self.behind: set[Topic] = set()  # something was dropped while too many calls waited
        self._resumed: set[Topic] = set()
        self._news: set[Topic] = set()
        self._ack_timer = self._resume_timer = None

    def add(self, name: str, listener: Listener) -> None:
        topic = self.topics.setdefault(name, Topic(name, self))
        topic.add(listener)
        if topic.stands and not topic.request and not topic.asks_again:
            listener.settle(self.timers, None)
        self.tend(topic)

    # The connection comes and goes

    def resume(self) -> dict[str, dict]:
        """`{topic: position}` for the connect packet; those that stood before come first."""
        standing = sorted((topic for topic in self.topics.values() if topic.listeners), key=lambda topic: topic.seq is None)
        self._resumed = set(standing[:MAX_RESUMED])
        return {topic.name: topic.place() for topic in standing[:MAX_RESUMED]}

    def connected(self) -> None:
        for topic in self._resumed:
            topic.request = RESUMED
        self._resumed = set()
        self._resume_timer = self.timers.set(ANSWER_S, lambda: self._await_resumed(ANSWER_S))
        for topic in list(self.topics.values()):
            self.tend(topic)

    def disconnected(self) -> None:
        self._resumed = set()
        self.timers.cancel(self._resume_timer)
        self._ack_timer = self.timers.cancel(self._ack_timer)
        self._news.clear()
        for topic in list(self.topics.values()):
            topic.stands = topic.is_ending = False
            topic.request = None
            self.has_left(topic)

    def end(self, error: dict) -> None:
        for topic in list(self.topics.values()):
            topic.end(error)
            self.has_left(topic)
        self.topics.clear()

    # What comes in

    def receive(self, frame: Any = None, *_: Any) -> None:
        self._client.requests.heard()
        if not isinstance(frame, dict):
            return
        name = frame.get("topic")
        topic = self.topics.get(name) if isinstance(name, str) else None
        if frame.get("type") == "event":
            self._receive_events(topic, frame)
        elif frame.get("type") == "ack":
            self._receive_answer(topic, frame)
        elif frame.get("type") == "error" and isinstance(frame.get("code"), str):
            self._receive_error(topic, frame)

    def _receive_events(self, topic: Topic | None, frame: dict) -> None:
        if topic is None or not topic.listeners or topic.is_ending:
            return
        events = frame.get("events")
        for event in events if isinstance(events, list) else [frame]:
            topic.receive(frame.get("epoch"), event)
        self._plan_ack(topic)

    def _receive_answer(self, topic: Topic | None, answer: dict) -> None:
        """Answers to what was asked for with the connection; those to requests come to their callbacks."""
        if topic is not None and is_place(answer) and topic.request in (None, RESUMED):
            topic.request = None
            self._stands(topic, answer)

    def _receive_error(self, topic: Topic | None, error: dict) -> None:
        if error["code"] == "token_expired":
            self._client.renew_token()
        if topic is None:
            if error["code"] in REFUSALS and "id" not in error:
                self.ask_unresumed()  # perhaps the whole resume was refused
            self._client.report(error)
        elif error["code"] in ("history_gap", "epoch_changed"):
            if topic.listeners and not topic.is_ending:
                topic.miss(error)
        elif error["code"] == "delivery_failed":
            topic.ask_again()
        elif topic.request is RESUMED and self._client.may_help(error):
            topic.request = None
            self.tend(topic, error)
        elif topic.request is RESUMED or error["code"] in REFUSALS:
            self._end_topic(topic, error)
        else:
            self._client.report(error)

    # Topics

    def tend(self, topic: Topic, refusal: dict | None = None) -> None:
        """The one place that compares what is wanted of a topic with what the server was asked for. One request a topic at a time, so that
        the answer to an old one is never taken for that to a new one. `refusal` is why the last one failed."""
        if topic.request or self.topics.get(topic.name) is not topic:
            return
        if topic.listeners:
            if self._client.is_live and (not topic.stands or topic.asks_again):
                self._ask(topic, refusal)
        elif topic.stands:
            self._ask_to_end(topic)
        else:
            self.has_left(topic)

    def _ask(self, topic: Topic, refusal: dict | None) -> None:
        """Subscribe, or go back to where the topic stands; asking again does no harm."""
        topic.asks_again = False

        def settle(error: dict | None, answer: dict | None) -> None:
            topic.request = None
            if error is not None:
                self._end_topic(topic, error)
            else:
                self._stands(topic, answer)

        request = Request(lambda: {"type": "subscribe", "topic": topic.name, **topic.place()}, settle, accepts=is_place)
        request.on_trouble = lambda error: self._client.report(error, topic)
        request.on_late = lambda: self._check_topic(topic.name, True)
        topic.request = self._client.requests.add(request)
        if refusal:
            self._client.requests.again(request, refusal)
        self._client.requests.pump()

    def _stands(self, topic: Topic, answer: dict) -> None:
        topic.stands = True
        topic.subscribed(answer)
        self.tend(topic)

    def _ask_to_end(self, topic: Topic) -> None:
        topic.is_ending = True  # what still comes is meant for listeners that have gone

        def settle(error: dict | None, answer: dict | None) -> None:
            topic.request = None
            topic.stands = topic.is_ending = False
            self.has_left(topic, error if error and error["code"] != "unknown_topic" else None)
            self.tend(topic)

        request = Request({"type": "unsubscribe", "topic": topic.name}, settle, accepts=is_place)
        request.on_late = lambda: self._check_topic(topic.name, False)
        topic.request = self._client.requests.add(request, GIVE_UP_S)
        self._client.requests.pump()

    def _check_topic(self, name: str, may_stand: bool) -> None:
        """A late copy was executed, after other requests about this topic: it is asked for, or ended, once more."""
        if name in self.topics:
            self.topics[name].ask_again()
        elif may_stand:
            topic = self.topics[name] = Topic(name, self)
            topic.stands = True
            self.tend(topic)

    def has_left(self, topic: Topic, error: dict | None = None) -> None:
        """Callers that wait for the end of their subscription are told; a topic without listeners, and not being resumed, is forgotten."""
        leaving, topic.leaving = topic.leaving, []
        for settle in leaving:
            settle(error)
        if not topic.listeners and topic not in self._resumed and self.topics.get(topic.name) is topic:
            del self.topics[topic.name]

    def leave(self, name: str, listener: Listener) -> Outcome:
        with self._client.lock:
            listener.settle(self.timers, {"code": "unsubscribed", "message": "unsubscribed", "retryable": False})
            topic = self.topics.get(name)
            if topic is None or listener not in topic.listeners:
                return listener.left or self.done()
            topic.remove(listener)
            if topic.listeners:
                listener.left = self.done()
                return listener.left
            left = listener.left = Outcome(self._client.threads.event())
            deadline = self.timers.set(GIVE_UP_S, lambda: left.settle(self._client.why()))
            topic.leaving.append(lambda error: (self.timers.cancel(deadline), left.settle(error)))
            if topic.request and topic.request is not RESUMED and topic.request.attempt == 0:  # it was never sent
                self._client.requests.drop(topic.request)
                topic.request = None
            self.tend(topic)
            return left

    def done(self) -> Outcome:
        outcome = Outcome(self._client.threads.event())
        outcome.settle(None)
        return outcome

    def _end_topic(self, topic: Topic, error: dict) -> None:
        """The server will not have this topic; the others are not concerned."""
        if topic.request and topic.request is not RESUMED:
            self._client.requests.drop(topic.request)
        topic.request = None
        topic.stands = topic.is_ending = False
        if topic.listeners:
            self._client.report(error, topic)
        topic.end(error)
        self.has_left(topic)

    def _await_resumed(self, waited_s: float) -> None:
        """Answers may be on their way behind what is being received, but not for long."""
        quiet_s = self._client.threads.now() - self._client.requests.heard_at
        if quiet_s > ANSWER_S - 1 or waited_s > PING_S:
            self.ask_unresumed()
        else:
            self._resume_timer = self.timers.set(1.0, lambda: self._await_resumed(waited_s + 1))

    def ask_unresumed(self) -> None:
        """What was asked for with the connection and has no answer is asked for one by one."""
        for topic in [each for each in self.topics.values() if each.request is RESUMED]:
            topic.request = None
            topic.stands = not topic.listeners  # where it is not wanted any more it may stand, and is ended
            self.tend(topic)

    # Handlers and acknowledgements

    def call(self, act: Callable, *arguments: Any, listener: Any = None, topic: Topic | None = None, seq: int | None = None) -> None:
        """Later, in the thread of the handlers. Whatever it raises is logged and changes nothing here."""
        moves = topic.moves if topic else 0

        def run() -> None:
            if listener is not None and (topic is None or listener not in topic.listeners):
                return  # it has left meanwhile
            try:
                act(*arguments)
            except Exception:
                log.exception("switchyard: %s failed", getattr(act, "__qualname__", act))

        def done() -> None:
            with self._client.lock:
                if topic is not None:
                    self._handled(topic, moves, seq)
                self._catch_up()

        if topic is not None:
            topic.pending += 1
        self.calls.add(run, done)

    def is_full(self) -> bool:
        return len(self.calls) >= MAX_CALLS

    def _plan_ack(self, topic: Topic) -> None:
        if topic.manner.get("ack") is not False and self._client.is_live:
            self._news.add(topic)
            self._ack_timer = self._ack_timer or self.timers.set(ACK_AFTER_S, self.send_acks)

    def send_acks(self) -> None:
        self._ack_timer = self.timers.cancel(self._ack_timer)
        ready = [topic for topic in self._news if topic.stands and not topic.is_ending and topic.acknowledged() is not None]
        self._news.clear()
        if self._client.is_live and ready:
            self._client.emit({"type": "ack", "acks": {topic.name: topic.acknowledged() for topic in ready}})

    def _handled(self, topic: Topic, moves: int, seq: int | None) -> None:
        topic.pending -= 1
        if seq is not None and topic.moves == moves:
            topic.handled = seq
        self._plan_ack(topic)

    def _catch_up(self) -> None:
        """What was dropped while too many calls waited is asked for again."""
        if self.behind and len(self.calls) <= MAX_CALLS // 2:
            behind, self.behind = self.behind, set()
            for topic in behind:
                topic.ask_again()
