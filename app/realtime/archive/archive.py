"""The durable topics as the hub sees them: what is published is kept, and what is asked for is found, wherever it lies."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import Event

from app.clock import Clock
from app.errors import ApiError
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.archive import Found
from app.realtime.archive.ladder import APART, FLUSH_S, Ladder
from app.realtime.archive.mongo import Known, MongoMessages
from app.realtime.archive.refused_messages import RefusedMessages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Head, Message
from app.realtime.topics import matches
from app.storage.errors import StorageUnavailable

log = SampledLog(get_logger(__name__))

NOTHING = Found([], is_whole=False)
KNOWN_AGAIN = 10_000  # of the messages published last: the ids that a publisher may repeat after a restart
MOVING_AT_END_S = 1.0


class Numbering(Protocol):
    """What the archive knows better than a log that has just begun."""

    def stored_positions(self) -> dict[str, tuple[str, int]]:
        """The topics whose numbering continues: the epoch, and the last seq that was given in it."""

    @property
    def is_certain(self) -> bool:
        """Whether that holds without the archive: False after a start of the machine, which may have been put back from a snapshot."""

    def remember_answer(self, topic: str, epoch: str, seq: int, id: str, user: str | None) -> None:
        """The message of this publisher's id stands there."""

    def restart_epochs(self) -> None:
        """No topic continues in its epoch."""

    def head(self, topic: str) -> Head: ...


class DurableArchive:
    """The invariant of a start: before the first message goes to MongoDB, what is stored there was compared with the numbers that the
    log continues from. A message beyond them, or another one at a place that is given again, means that DATA_DIR or the machine was
    put back to an earlier state; then every topic begins a new epoch, so that a place names one message and a client that resumes
    hears of it. While MongoDB is away at the start, the numbers are believed where the machine has run since, and nowhere else."""

    def __init__(
        self,
        store: MongoMessages,
        spool: MessageSpool,
        patterns: tuple[str, ...],
        max_bytes: int,
        clock: Clock,
        metrics,
        *,
        refused: RefusedMessages | None = None,
        steady: Clock | None = None,
        numbering: Numbering | None = None,
    ):
        self._store = store
        self._spool = spool
        self._patterns = patterns
        self._clock = clock
        self._ladder = Ladder(store, spool, refused or RefusedMessages(spool.folder), max_bytes, clock, steady or clock, metrics)
        self._numbering = numbering
        self._numbered: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """After the log has its numbers, before anything is published."""
        if self._numbering is None:
            return
        self._numbered = self._numbering.stored_positions()
        try:
            known = self._spool.newest(KNOWN_AGAIN)
        except OSError as error:
            log.warning("archive_ids_not_read", error=str(error), repeated_messages="are taken for new ones")
            known = []
        self._learn(known)
        self._ladder.before_first, self._ladder.on_taken = lambda: self._compare(known), self._on_taken
        is_compared = self._ladder.reach(self._ladder.look_first)
        if not is_compared and self._numbered and not self._numbering.is_certain:
            self._restart_epochs("the machine was started anew or the file of numbers was touched, and MongoDB is away")

    def _compare(self, spooled: list[Known]) -> None:
        """Raises StorageUnavailable; then it is asked again before anything is stored."""
        beyond = self._store.any_at([(topic, epoch, seq + 1) for topic, (epoch, seq) in self._numbered.items()])
        if beyond:
            self._restart_epochs(f"MongoDB has {beyond}")
        try:
            self._learn([*self._store.newest(KNOWN_AGAIN), *spooled])
        except StorageUnavailable as error:  # sorting may take longer than a database without the index is given
            log.warning("archive_ids_not_read", error=str(error)[:300], repeated_messages="are taken for new ones")

    def _learn(self, known: list[Known]) -> None:
        """The ids; and whether a topic that continues was continued already: by a seq that was not given in its epoch yet, or, with
        what it said last, in another epoch."""
        for each in known:
            self._numbering.remember_answer(*each)
        last = {each.topic: each for each in known if APART not in each.epoch}.values()
        beyond = [each for each in known if self._is_beyond(each)] + [each for each in last if self._is_elsewhere(each)]
        if beyond:
            self._restart_epochs("the archive has {0.topic} {0.epoch} {0.seq}".format(beyond[0]))

    def _is_beyond(self, each: Known) -> bool:
        epoch, seq = self._numbered.get(each.topic, ("", 0))
        return each.epoch == epoch and each.seq > seq

    def _is_elsewhere(self, each: Known) -> bool:
        return self._numbered.get(each.topic, (each.epoch, 0))[0] != each.epoch

    def _restart_epochs(self, reason: str) -> None:
        log.error("numbers_not_believed", reason=reason, topics_begin="new epochs")
        self._numbered = {}
        self._numbering.restart_epochs()

    def _on_taken(self, message: Message) -> None:
        """Of an epoch that is over, this is known already."""
        if self._numbering.head(message.topic).epoch == message.epoch:
            self._restart_epochs(f"another message stands at {message.topic} {message.epoch} {message.seq}")

    def add(self, message: Message) -> None:
        if self.covers(message.topic):
            self._ladder.add(message)

    def confirm(self) -> None:
        """Before a publish is answered. While the process ends, what was published is on the disk when this returns."""
        if self._ladder.is_closing and len(self._ladder):
            self._ladder.save()
            if len(self._ladder):
                raise ApiError("unavailable", "The server is stopping; publish again.", retry_after_ms=1000)

    def covers(self, topic: str, epoch: str = "", after: int = 0) -> bool:
        return any(matches(pattern, topic) for pattern in self._patterns)

    def run(self, stop: Event) -> None:
        """The background task. When it is told to stop, what is in memory goes to the disk, and from there on to MongoDB as far as
        there is time."""
        while not stop.wait(FLUSH_S):
            self.turn(stop)
        self._ladder.is_closing = True
        self._ladder.save()
        give_up_at = time.monotonic() + MOVING_AT_END_S
        while time.monotonic() < give_up_at and self._ladder.move():
            self._ladder.save()
        self._spool.close()

    def turn(self, stop: Event | None = None) -> None:
        """What is new goes down the ladder, between any two steps of moving what is older."""
        self._ladder.save()
        while self._ladder.move() and not (stop and stop.is_set()):
            self._ladder.save()

    def check_complete(self, topic: str, epoch: str, after: int, last: int, then: Callable[[bool, int], None]) -> None:
        gevent.spawn(self._answer, self._has_all, False, (topic, epoch, after, last), then)

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[Found, int], None]) -> None:
        gevent.spawn(self._answer, self._find, NOTHING, (topic, epoch, after, last), then)

    def _answer(self, look: Callable, otherwise: Any, place: tuple[str, str, int, int], then: Callable[[Any, int], None]) -> None:
        """Whoever waits for the answer must get one."""
        try:
            answer = look(*place)
        except StorageUnavailable as error:
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
            except StorageUnavailable as error:
                log.warning("archive_not_read", error=str(error)[:300], topic=topic)
        found = own | self._spool.find(topic, epoch, after)
        return Found([found[seq] for seq in sorted(found)][: last - after], is_whole=False)

    def check(self) -> dict:
        backlog = self._spool.waiting_bytes()
        return {**({"state": "degraded"} if backlog else {}), "archiveWaiting": len(self._ladder), "archiveSpooledBytes": backlog}
