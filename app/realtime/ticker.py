"""Calls the hub when something is due: the one greenlet for all deadlines and all who catch up."""

from gevent.event import Event

from app.serving.fairness import yield_to_others

LONGEST_WAIT_S = 0.5


class Ticker:
    def __init__(self, hub, clock):
        self._hub = hub
        self._clock = clock
        self._wake = Event()
        hub.timers.on_earlier = self._wake.set

    def run(self, stop: Event) -> None:
        while not stop.is_set():
            self._wake.clear()
            now = self._clock()
            due = self._hub.tick(now)
            if due is not None and due <= now:
                yield_to_others()
            else:
                self._wake.wait(LONGEST_WAIT_S if due is None else min(LONGEST_WAIT_S, (due - now) / 1000))
