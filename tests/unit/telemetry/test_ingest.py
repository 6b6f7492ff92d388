"""What is in flight is bounded, and the bound costs nothing to be refused by."""

import gevent
import pytest
from gevent.event import Event

from app.errors import ApiError
from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.telemetry.ingest import Ingest
from app.telemetry.sinks import Written
from tests.apps import Clock

BATCH = b'{"app":"web","events":[{"type":"event","name":"a"}]}'


class SlowSink:
    def __init__(self):
        self.may_end, self.asked = Event(), 0

    def write(self, events):
        self.asked += 1
        self.may_end.wait()
        return Written("memory", ())


@pytest.fixture
def sink():
    return SlowSink()


class OpenConfigs:
    event_filter = None  # nobody denies anything


@pytest.fixture
def ingest(sink):
    limits = {"max_events": 10, "max_in_flight": 2}
    return Ingest(sink, Clock(), Metrics(), configs=OpenConfigs(), note=lambda events, known: None, **limits)


def test_over_the_bound_a_batch_is_refused_before_it_is_read(ingest, sink):
    writing = [gevent.spawn(ingest.save, BATCH) for _ in range(2)]
    gevent.sleep(0)
    with pytest.raises(ApiError) as refused:
        ingest.save(b"not even JSON")
    assert (refused.value.code, refused.value.status) == ("unavailable", 503)
    assert refused.value.retry_after_ms > 0
    sink.may_end.set()
    gevent.joinall(writing, raise_error=True)
    assert sink.asked == 2
    assert ingest.save(BATCH)["saved"] == 1


def test_whatever_ends_a_batch_gives_its_place_back(ingest, sink):
    sink.may_end.set()
    for _ in range(5):
        with pytest.raises(ApiError):
            ingest.save(b"not JSON")
    sink.write = lambda events: (_ for _ in ()).throw(StorageUnavailable("no room", code="storage_full"))
    for _ in range(5):
        with pytest.raises(ApiError):
            ingest.save(BATCH)
    del sink.write
    killed = gevent.spawn(ingest.save, BATCH)
    gevent.sleep(0)
    killed.kill()
    assert ingest.in_flight == 0
