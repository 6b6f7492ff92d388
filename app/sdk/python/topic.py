"""A topic's messages once and in order, for each of its listeners from a position of its own. It knows no socket and no thread."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import is_seq
from .threads import Outcome, Subscription, Timers

if TYPE_CHECKING:
    from .subscriptions import Subscriptions

HOLE_S = 2.0  # a hole that has not filled by then is asked for
MAX_EARLY = 512  # messages that came before their turn; more are asked for again


@dataclass(eq=False)
class Listener:
    """One subscription of the caller's, with a position of its own in the topic."""

    handler: Callable[[Any, dict], None]
    on_gap: Callable[[dict], None]
    manner: dict[str, Any]
    epoch: str | None
    seq: int | None
    outcome: Subscription | None = None
    deadline: list | None = None
    left: Outcome | None = None

    def settle(self, timers: Timers, error: dict | None) -> None:
        timers.cancel(self.deadline)
        self.outcome.settle(error)


class Topic:
    """A topic's messages once and in order, whatever comes twice or too early. `seq` is the position up to which all was handed on."""

    def __init__(self, name: str, owner: "Subscriptions"):
        self.name = name
        self.owner = owner
        self.listeners: list[Listener] = []
        self.leaving: list[Callable[[dict | None], None]] = []
        self.request: Any = None
        self.stands = self.is_ending = self.asks_again = False
        self.pending = 0  # calls of handlers that are not done
        self.moves = 0
        self.early: dict[int, dict] = {}
        self.timer: list | None = None
        self.reset()

    def reset(self) -> None:
        self.go_to(None, None)
        self.stop_timer()

    def stop_timer(self) -> None:
        self.owner.timers.cancel(self.timer)
        self.timer = None

    def go_to(self, epoch: str | None, seq: int | None) -> None:
        self.epoch, self.seq, self.strange, self.handled = epoch, seq, None, None
        self.early.clear()
        self.moves += 1

    @property
    def manner(self) -> dict[str, Any]:
        """The least demanding manner that gives every listener what it asked for."""
        first, *others = [listener.manner for listener in self.listeners] or [{}]
        if not others:
            return first
        manners = [first, *others]
        merged: dict[str, Any] = {}
        for name, strongest in (("ack", True), ("mode", "all")):
            values = [manner.get(name) for manner in manners]
            merged[name] = values[0] if all(value == values[0] for value in values) else strongest
        merged["batch"] = True if any(manner.get("batch") for manner in manners) else None
        return {name: value for name, value in merged.items() if value is not None}

    def place(self) -> dict[str, Any]:
        position = {} if self.seq is None else {"since": self.seq, **({"epoch": self.epoch} if self.epoch else {})}
        return {**self.manner, **position}

    def acknowledged(self) -> int | None:
        """Up to here the handlers have returned."""
        return self.seq if not self.pending else self.handled

    def add(self, listener: Listener) -> None:
        """A listener that gave a position takes the topic back to it; the others pass over what they had."""
        before = self.manner if self.listeners else None
        self.listeners.append(listener)
        if listener.seq is None:
            listener.epoch, listener.seq = self.epoch, self.seq
        else:
            if self.seq is None or (listener.epoch and listener.epoch != self.epoch) or listener.seq < self.seq:
                self.go_to(listener.epoch or self.epoch, listener.seq)
            self.asks_again = True
        if before is not None and before != self.manner:
            self.asks_again = True

    def remove(self, listener: Listener) -> None:
        self.listeners.remove(listener)
        if not self.listeners:
            self.reset()

    def align(self, head: int | None = None, is_begun: bool = False, is_other: bool = False) -> None:
        """Listeners follow the topic into its epoch. Those whose position means nothing there are told, and get it from its beginning."""
        lost = [each for each in self.listeners if each.seq is not None and self._is_lost(each, head, is_other)]
        told = [each for each in lost if not (is_begun and each.seq == 0)]
        for listener in self.listeners:
            if listener.seq is None and self.seq is not None:
                listener.seq = self.seq if head is None else max(self.seq, head)
            listener.epoch = self.epoch
        for listener in lost:
            listener.seq = 0
        if lost and self.seq:
            self.go_to(self.epoch, 0)
            self.ask_again()
        for listener in told:
            self.tell(listener, {"reason": "epoch_changed"})

    def _is_lost(self, listener: Listener, head: int | None, is_other: bool) -> bool:
        is_elsewhere = listener.epoch != self.epoch if listener.epoch else is_other
        return is_elsewhere or (head is not None and listener.seq > head)

    def tell(self, listener: Listener, gap: dict) -> None:
        self.owner.call(listener.on_gap, {"topic": self.name, **gap}, listener=listener, topic=self)

    def subscribed(self, answer: dict) -> None:
        self.strange = None
        head = answer["head"] if is_seq(answer.get("head")) else None
        is_other = answer.get("reason") == "epoch_changed"  # decides where a position was given without an epoch
        is_here = self.epoch == answer["epoch"] if self.epoch else not is_other
        if self.seq is None or not is_here or (head is not None and self.seq > head):
            self.go_to(answer["epoch"], answer["seq"])
        self.epoch = answer["epoch"]
        self.align(head, is_other=is_other)
        for listener in self.listeners:
            listener.settle(self.owner.timers, None)

    def receive(self, epoch: Any, event: Any) -> None:
        if not isinstance(event, dict) or not is_seq(event.get("seq")) or not isinstance(epoch, str) or "payload" not in event:
            return
        if self.owner.is_full():
            self.owner.behind.add(self)
            return
        seq, skipped = event["seq"], event.get("skipped")
        skips = isinstance(skipped, list | tuple) and len(skipped) == 2 and all(map(is_seq, skipped))
        if self.seq is None or (self.epoch != epoch and self.seq == 0 and seq == 1):
            is_begun = self.seq == 0  # nothing of the epoch before can have been missed
            self.go_to(epoch, (skipped[0] if skips else seq) - 1)
            self.align(is_begun=is_begun)
        if self.epoch != epoch:
            if self.strange != epoch:
                self.ask_again()  # no frame announced this epoch: the server says what is missing
            self.strange = epoch
            return
        if skips:
            self.pass_to(skipped[1])
        if seq > self.seq and len(self.early) < MAX_EARLY:
            self.early[seq] = event
        self.close_up()

    def miss(self, frame: dict) -> None:
        """A gap that the server knows of."""
        if self.owner.is_full():
            self.owner.behind.add(self)
            return
        if frame["code"] == "epoch_changed":
            if frame.get("epoch") and self.epoch != frame["epoch"]:
                self.go_to(frame["epoch"], 0)
            self.align()
            return
        first, last = frame.get("from"), frame.get("to")
        if not is_seq(first) or not is_seq(last):
            return

        def tell(listener: Listener, before: int) -> None:
            begin = first if listener.seq is None else max(first, listener.seq + 1)
            if begin < before:
                self.tell(listener, {"reason": frame["code"], "from": begin, "to": before - 1, "retryable": frame.get("retryable")})

        self.pass_to(last, tell)

    def pass_to(self, last: int, tell: Callable[[Listener, int], None] = lambda listener, before: None) -> None:
        """Nothing up to `last` will come any more, except what is here. `tell(listener, seq)` where messages before `seq` are missing."""
        here = sorted(seq for seq in self.early if self.seq is not None and self.seq < seq <= last)
        for seq in [*here, last + 1]:
            for listener in self.listeners:
                tell(listener, seq)
            if self.seq is None:
                return  # nothing was subscribed to yet
            self.seq = max(self.seq, seq - 1)
            for listener in self.listeners:
                listener.seq = max(listener.seq, seq - 1)
            if seq <= last:
                self.deliver(seq)
        self.close_up()

    def close_up(self) -> None:
        while self.seq + 1 in self.early:
            self.deliver(self.seq + 1)
        for seq in [seq for seq in self.early if seq <= self.seq]:
            del self.early[seq]
        if not self.early:
            self.stop_timer()
        elif not self.timer:
            self.timer = self.owner.timers.set(HOLE_S, self._ask_for_hole)

    def _ask_for_hole(self) -> None:
        self.timer = None
        self.ask_again()
        self.close_up()

    def deliver(self, seq: int) -> None:
        event = self.early.pop(seq)
        self.seq = seq
        for listener in self.listeners:
            if seq > listener.seq:
                listener.seq = seq
                message = {**event, "topic": self.name, "epoch": self.epoch}
                self.owner.call(listener.handler, event["payload"], message, listener=listener, topic=self, seq=seq)

    def ask_again(self) -> None:
        self.asks_again = True
        self.owner.tend(self)

    def end(self, error: dict) -> None:
        """No listener gets anything any more: each has its reason."""
        for listener in self.listeners:
            listener.settle(self.owner.timers, error)
        self.listeners.clear()
        self.reset()
