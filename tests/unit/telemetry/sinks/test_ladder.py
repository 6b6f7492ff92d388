"""MongoDB, else the spool, else an error."""

import pytest
from msgspec import structs

from app.metrics import Metrics
from app.storage.circuit_breaker import FIRST_REST_MS
from app.storage.errors import StorageUnavailable
from app.telemetry.batch import KNOWN_ID_MARK
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import SinkRefused, Written
from app.telemetry.sinks.in_doubt import InDoubt
from app.telemetry.sinks.ladder import Ladder
from app.telemetry.sinks.memory import MemorySink
from tests.apps import NOW, Clock

EVENT = StoredEvent(id="a", app="web", type="page", name="/", props={}, ts=NOW, created_at=NOW)


class FailingSink:
    """Fails while `error` is set, and counts how often it was asked."""

    def __init__(self, name, error=None):
        self.name, self.error, self.asked, self.events = name, error, 0, []

    def write(self, events):
        self.asked += 1
        if self.error:
            raise self.error
        self.events += events
        return Written(self.name)


@pytest.fixture
def ladder():
    ladder = Ladder(FailingSink("mongo"), FailingSink("spool"), Clock(), Metrics())
    ladder.mongo, ladder.spool, ladder.clock = ladder._primary, ladder._spool, ladder._clock
    return ladder


def test_while_mongo_works_the_spool_is_not_touched(ladder):
    assert ladder.write([1]).storage == "mongo"
    assert ladder.spool.asked == 0


def test_when_mongo_fails_the_same_events_go_to_the_spool(ladder):
    ladder.mongo.error = StorageUnavailable("away")
    assert ladder.write([1, 2]).storage == "spool"
    assert ladder.spool.events == [1, 2]


def test_a_mongo_that_failed_is_left_alone_for_a_moment_and_then_tried_by_one_caller(ladder):
    ladder.mongo.error = StorageUnavailable("away")
    for _ in range(5):
        ladder.write([1])
    assert ladder.mongo.asked == 1
    ladder.clock.pass_ms(FIRST_REST_MS)
    ladder.write([1])
    ladder.write([1])
    assert ladder.mongo.asked == 2


def test_a_mongo_that_is_back_is_used_again_at_once(ladder):
    ladder.mongo.error = StorageUnavailable("away")
    ladder.write([1])
    ladder.mongo.error = None
    ladder.clock.pass_ms(FIRST_REST_MS)
    assert [ladder.write([1]).storage for _ in range(3)] == ["mongo"] * 3


@pytest.mark.parametrize("error", [StorageUnavailable("no room", code="storage_full"), StorageUnavailable("read-only")])
def test_when_the_spool_fails_too_nothing_is_answered_as_saved(ladder, error):
    ladder.mongo.error, ladder.spool.error = StorageUnavailable("away"), error
    with pytest.raises(type(error)):
        ladder.write([EVENT])


def test_without_mongo_the_spool_is_the_store():
    assert Ladder(None, MemorySink(), Clock(), Metrics()).write([EVENT]).storage == "memory"


def test_each_rung_has_its_count(ladder):
    ladder.write([1])
    ladder.mongo.error = StorageUnavailable("away")
    ladder.write([1])
    ladder.spool.error = StorageUnavailable("no room", code="storage_full")
    with pytest.raises(StorageUnavailable):
        ladder.write([EVENT])
    assert [ladder._rungs[rung]._value.get() for rung in ("mongo", "spool", "full")] == [1, 1, 1]


class ForgetfulMongo(MemorySink):
    """Takes some of the events, and loses its answer."""

    takes = None

    def write(self, events):
        if self.takes is None:
            return super().write(events)
        super().write(events[: self.takes])
        raise StorageUnavailable("its answer was lost")


def with_ids(*names):
    return [structs.replace(EVENT, id=f"{KNOWN_ID_MARK}{name}") for name in names]


@pytest.fixture
def failing():
    """A ladder on which both rungs can fail."""
    ladder = Ladder(ForgetfulMongo(), FailingSink("spool", StorageUnavailable("no room", code="storage_full")), Clock(), Metrics())
    ladder.mongo, ladder.spool, ladder.clock = ladder._primary, ladder._spool, ladder._clock
    return ladder


def is_refused(ladder, *names):
    with pytest.raises(StorageUnavailable):
        ladder.write(with_ids(*names))


def recovers(ladder):
    ladder.mongo.takes = None
    ladder.clock.pass_ms(FIRST_REST_MS)


def test_what_mongo_took_of_a_batch_that_was_answered_503_is_new_when_it_comes_again(failing):
    failing.write(with_ids("a"))
    failing.mongo.takes = 2
    is_refused(failing, "b", "c", "d")
    recovers(failing)
    assert failing.write(with_ids("a")).duplicates == 1
    assert list(failing.write(with_ids("b", "b", "c", "d")).known) == [1]
    assert failing.write(with_ids("b", "c", "d")).duplicates == 3


def test_a_batch_that_mongo_was_not_asked_about_is_in_no_doubt(failing):
    failing.write(with_ids("a"))
    failing.mongo.takes = 0
    is_refused(failing, "b")
    is_refused(failing, "a")  # while MongoDB is left alone
    recovers(failing)
    assert failing.write(with_ids("a", "b")).duplicates == 1


def test_once_the_spool_took_it_a_batch_is_in_doubt_no_more(failing):
    failing.mongo.takes = 1
    is_refused(failing, "a")
    failing.spool.error = None
    assert failing.write(with_ids("a")).storage == "spool"
    recovers(failing)
    assert failing.write(with_ids("a")).duplicates == 1


def test_only_so_many_are_remembered_and_the_oldest_are_forgotten_first():
    in_doubt = InDoubt(most=2)
    in_doubt.add(with_ids("a", "b", "c"))
    assert [in_doubt.settle(with_ids(name), Written("mongo", [0])).duplicates for name in "abc"] == [1, 0, 0]


def test_events_that_a_healthy_mongo_refuses_go_to_the_spool_and_nobody_else_is_sent_there(ladder):
    ladder.mongo.error = SinkRefused("a validator")
    assert ladder.write([1]).storage == "spool"
    ladder.mongo.error = None
    assert ladder.write([2]).storage == "mongo"


class RefusingMongo(MemorySink):
    def write(self, events):
        written = super().write(events[1:])
        return written._replace(refused={0: "MongoDB: never"})


@pytest.mark.parametrize("has_room", [True, False])
def test_what_mongo_refuses_for_good_is_kept_while_there_is_room_and_is_refused_either_way(has_room):
    spool = FailingSink("spool")
    ladder = Ladder(RefusingMongo(), spool, Clock(), Metrics(), lambda: has_room)
    written = ladder.write(with_ids("bad", "good"))
    assert (written.storage, list(written.refused)) == ("memory", [0])
    assert [event.id for event in spool.events] == ([f"{KNOWN_ID_MARK}bad"] if has_room else [])


def test_where_a_refused_event_cannot_be_kept_nothing_is_answered_and_the_rest_is_in_doubt():
    ladder = Ladder(RefusingMongo(), FailingSink("spool", StorageUnavailable("no room", code="storage_full")), Clock(), Metrics())
    is_refused(ladder, "bad", "good")
    ladder._primary = MemorySink()
    ladder._primary.write(with_ids("good"))
    assert ladder.write(with_ids("good")).duplicates == 0
