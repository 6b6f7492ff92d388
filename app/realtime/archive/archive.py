"""The durable topics as the hub sees them: what is published is kept, and what is asked for is found, wherever it lies."""

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from app.clock import Clock
from app.log_sampling import SampledLog
from app.logs import get_logger
from app.realtime.archive import Found
from app.realtime.archive.ladder import FLUSH_S, Ladder
from app.realtime.archive.mongo import MongoMessages, StoreUnavailable
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.realtime.topics import matches

log = SampledLog(get_logger(__name__))

NOTHING = Found([], is_whole=False)


class DurableArchive:
    def __init__(self, store: MongoMessages, spool: MessageSpool, patterns: tuple[str, ...], max_bytes: int, clock: Clock, metrics):
        self._store = store
        self._spool = spool
        self._patterns = patterns
        self._clock = clock
        self._ladder = Ladder(store, spool, max_bytes, clock, metrics)

    def keep(self, message: Message) -> None:
        if self.keeps(message.topic):
            self._ladder.keep(message)

    def keeps(self, topic: str, epoch: str = "", after: int = 0) -> bool:
        return any(matches(pattern, topic) for pattern in self._patterns)

    def run(self, stop: Event) -> None:
        """The background task. What is in memory when it is told to stop is put somewhere."""
        while not stop.wait(FLUSH_S):
            self.turn(stop)
        self._ladder.save()
        self._spool.close()

    def turn(self, stop: Event | None = None) -> None:
        """What is new goes down the ladder, between any two steps of moving what is older."""
        self._ladder.save()
        while self._ladder.move() and not (stop and stop.is_set()):
            self._ladder.save()

    def survey(self, topic: str, epoch: str, after: int, last: int, then: Callable[[bool, int], None]) -> None:
        gevent.spawn(self._answer, self._has_all, False, (topic, epoch, after, last), then)

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[Found, int], None]) -> None:
        gevent.spawn(self._answer, self._find, NOTHING, (topic, epoch, after, last), then)

    def _answer(self, look: Callable, otherwise: Any, place: tuple[str, str, int, int], then: Callable[[Any, int], None]) -> None:
        """Whoever waits for the answer must get one."""
        try:
            answer = look(*place)
        except StoreUnavailable as error:
            log.warning("archive_not_read", error=str(error)[:300], topic=place[0])
            answer = otherwise
        except Exception:
            log.exception("archive_not_read", topic=place[0])
            answer = otherwise
        then(answer, self._clock())

    def _has_all(self, topic: str, epoch: str, after: int, last: int) -> bool:
        """What is not stored yet is the newest, as a rule, so that MongoDB has to count only what lies below it."""
        near = {seq for seq in self._ladder.waiting(topic, epoch, after) if seq <= last}
        near |= self._spool.find(topic, epoch, after, last).keys()
        while last in near:
            near.remove(last)
            last -= 1
        if last == after:
            return True
        return not self._ladder.is_resting and self._store.count(topic, epoch, after, last, sorted(near)) + len(near) == last - after

    def _find(self, topic: str, epoch: str, after: int, last: int) -> Found:
        """In the order in which messages move on, so that none is missed that moves meanwhile."""
        own = self._ladder.waiting(topic, epoch, after)
        if not self._ladder.is_resting:
            found = {seq: message for seq, message in own.items() if seq <= last} | self._spool.find(topic, epoch, after, last)
            try:
                found |= {message.seq: message for message in self._store.find(topic, epoch, after, last)}
                return Found([found[seq] for seq in sorted(found)], is_whole=True)
            except StoreUnavailable as error:
                log.warning("archive_not_read", error=str(error)[:300], topic=topic)
        found = own | self._spool.find(topic, epoch, after)
        return Found([found[seq] for seq in sorted(found)][: last - after], is_whole=False)

    def check(self) -> dict:
        backlog = self._spool.waiting_bytes()
        return {**({"state": "degraded"} if backlog else {}), "archiveWaiting": len(self._ladder), "archiveSpooledBytes": backlog}
