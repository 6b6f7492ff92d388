"""Starts, supervises and drains what runs in the background.

One rule: a background greenlet never ends by itself. One that dies takes the process with it, because a server whose
drainer or listener is silently gone looks healthy and is not; whoever supervises the process starts a fresh one.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

import gevent
from gevent.event import Event

from app.logs import get_logger

log = get_logger(__name__)

SHORTEST_WAIT_S = 0.1  # for what comes after one that used up all the time


def end_process() -> None:
    """Ask this process to leave the ordinary way; gunicorn's master or systemd starts another."""
    os.kill(os.getpid(), signal.SIGTERM)


class Lifecycle:
    """`add` what runs, `on_drain` what must be told to finish; `start` after the fork, `drain` on SIGTERM.

    A background task is a function of one argument, an Event that is set when it should return.
    """

    def __init__(self, on_death: Callable[[], None] = end_process):
        self._tasks: list[tuple[str, Callable[[Event], None]]] = []
        self._starting: list[Callable[[], None]] = []
        self._draining: list[tuple[str, Callable[[], None]]] = []
        self._greenlets: list[gevent.Greenlet] = []
        self._stop = Event()
        self._drained = Event()
        self._on_death = on_death
        self._lock = threading.Lock()
        self.state = "new"  # new -> running -> draining -> stopped
        self.has_failed = False

    def add(self, name: str, run: Callable[[Event], None]) -> None:
        self._tasks.append((name, run))

    def every(self, name: str, seconds: float, step: Callable[[], None]) -> None:
        """A task that is `step` over and over. A step must handle its own expected failures."""

        def run(stop: Event):
            while not stop.wait(seconds):
                step()

        self.add(name, run)

    def on_start(self, call: Callable[[], None]) -> None:
        self._starting.append(call)

    def on_drain(self, name: str, call: Callable[[], None]) -> None:
        """Called in the order of registration when draining begins, before the tasks are told to stop."""
        self._draining.append((name, call))

    @property
    def is_draining(self) -> bool:
        return self.state in ("draining", "stopped")

    def start(self) -> None:
        with self._lock:
            if self.state != "new":
                return
            self.state = "running"
        for call in self._starting:
            call()
        self._greenlets = [gevent.spawn(self._supervise, name, run) for name, run in self._tasks]
        log.info("started", background=[name for name, _ in self._tasks])

    def drain(self, timeout_s: float) -> None:
        """Tell everybody, wait at most `timeout_s`, then leave the rest behind with a line that says so. Who calls second waits
        for the first, so that nobody ends the process under a drain that is still going on."""
        with self._lock:
            is_first = not self.is_draining
            if is_first:
                self.state = "draining"
        if not is_first:
            self._drained.wait(timeout_s)
            return
        log.info("draining")
        deadline = time.monotonic() + timeout_s
        self._take_steps(deadline)
        self._stop.set()
        gevent.joinall(self._greenlets, timeout=max(SHORTEST_WAIT_S, deadline - time.monotonic()))
        late = [name for (name, _), greenlet in zip(self._tasks, self._greenlets, strict=False) if not greenlet.dead]
        if late:
            log.warning("drain_timed_out", left_behind=late)
        self.state = "stopped"
        self._drained.set()
        log.info("drained")

    def _take_steps(self, deadline: float) -> None:
        """One after another, in their order; one that hangs keeps the others waiting until the time is over and no longer."""
        for name, call in self._draining:
            step = gevent.spawn(_attempt, name, call)
            step.join(timeout=max(SHORTEST_WAIT_S, deadline - time.monotonic()))
            if not step.dead:
                log.warning("drain_timed_out", left_behind=[name])

    def _supervise(self, name: str, run: Callable[[Event], None]) -> None:
        try:
            run(self._stop)
        except Exception:
            log.critical("background_task_died", task=name, exc_info=True)
        else:
            if self._stop.is_set():
                return
            log.critical("background_task_died", task=name, error="it returned, and should not have")
        if not self.is_draining:
            self.has_failed = True
            self._on_death()


def _attempt(name: str, call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        log.exception("drain_step_failed", step=name)
