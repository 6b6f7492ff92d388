"""The service that other parts use, with and without a server behind it."""

import pytest

from app.errors import ApiError
from app.identity.identity import Identity
from app.metrics import Metrics
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.options import Options
from app.realtime.protocol import Subscribe, Unsubscribe
from app.realtime.realtime import Realtime
from tests.apps import NOW, Clock
from tests.unit.realtime.fakes import MemoryTransport


@pytest.fixture
def realtime():
    log = MemoryTopicLog(max_messages=10, max_bytes=10_000, max_topics=10)
    return Realtime(log, Clock(), Metrics(), Options(max_topics=5, max_payload_bytes=1024))


def test_publishing_works_before_there_is_a_server(realtime):
    answer = realtime.publish("t", {"a": 1})
    assert (answer["ok"], answer["topic"], answer["seq"]) == (True, "t", 1)
    assert set(answer) == {"ok", "topic", "seq", "epoch"}
    realtime.emit("reservation:update", {"a": 1}, "role:admin")
    assert realtime.check() == {"state": "up", "connections": 0, "subscriptions": 0, "topics": 0, "behind": 0, "stalled": 0}


def test_the_same_id_of_the_same_user_is_a_duplicate(realtime):
    first = realtime.publish("t", 1, id="m", user="u")
    assert realtime.publish("t", 1, id="m", user="u") == {**first, "duplicate": True}
    assert realtime.publish("t", 1, id="m", user="v")["seq"] == 2


def test_what_is_published_later_changes_do_not_reach(realtime):
    transport = MemoryTransport()
    realtime.bind(transport)
    realtime.hub.connect("a", Identity(kind="user", user_id="root", roles=("admin",)))
    change = {"flag": "x", "roles": ["a"]}
    realtime.publish("flags", change)
    change["roles"].append("b")
    realtime.hub.handle("a", Subscribe("flags", since=0), NOW, lambda frame: None)
    assert transport.sent["a"][-1]["payload"] == {"flag": "x", "roles": ["a"]}
    assert transport.sent["a"][-1]["ts"] == NOW
    assert realtime.check() == {"state": "up", "connections": 1, "subscriptions": 1, "topics": 1, "behind": 0, "stalled": 0}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("no topic", 1), "bad_request"),
        (("", 1), "bad_request"),
        (("t", b"binary"), "bad_request"),
        (("t", object()), "bad_request"),
        (("t", 1, ""), "bad_request"),
        (("t", "x" * 2000), "payload_too_large"),
    ],
)
def test_what_cannot_be_published_is_refused_with_its_code(realtime, arguments, code):
    with pytest.raises(ApiError) as caught:
        realtime.publish(*arguments)
    assert caught.value.code == code


def test_an_emitted_event_goes_to_its_room_through_the_transport(realtime):
    transport = MemoryTransport()
    realtime.bind(transport)
    realtime.emit("reservation:update", {"id": 7}, "user:u1")
    assert transport.emitted == [("reservation:update", {"id": 7}, "user:u1")]
    with pytest.raises(ApiError):
        realtime.emit("reservation:update", b"binary", "user:u1")


def test_the_messages_of_one_user_are_held_to_a_rate_and_a_large_request_is_paid_for_by_the_ones_after_it():
    clock = Clock()
    log = MemoryTopicLog(max_messages=10, max_bytes=10_000, max_topics=10)
    realtime = Realtime(log, clock, Metrics(), Options(topic_rate="10000/second"), user_rate="100/second")
    ann, bob = (Identity(kind="user", user_id=name, publish_to=("*",)) for name in ("ann", "bob"))
    messages = [{"topic": "t", "payload": 1}]
    realtime.publish_as(ann, messages * 300)
    with pytest.raises(ApiError) as refused:
        realtime.publish_as(ann, messages)
    assert refused.value.retry_after_ms == pytest.approx(2010, abs=10)
    realtime.publish_as(bob, messages)
    clock.pass_ms(1990)
    with pytest.raises(ApiError):
        realtime.publish_as(ann, messages)
    clock.pass_ms(30)
    realtime.publish_as(ann, messages)


def test_subscribing_to_unknown_topics_and_asking_for_positions_leaves_nothing_behind():
    log = MemoryTopicLog(max_messages=10, max_bytes=10_000, max_topics=10)
    realtime = Realtime(log, Clock(), Metrics(), Options(max_topics=5))
    realtime.bind(MemoryTransport())
    hub, admin = realtime.hub, Identity(kind="user", user_id="root", roles=("admin",))
    for round_ in range(50):
        hub.connect("a", admin)
        for number in range(5):
            topic = f"unknown:{round_}:{number}"
            hub.handle("a", Subscribe(topic, since=3, epoch="e"), NOW, lambda frame: None)
            if number % 2:
                hub.handle("a", Unsubscribe(topic), NOW, lambda frame: None)
        hub.disconnect("a")
    assert log.counts() == {"topics": 0, "bytes": 0, "ids": 0, "publishers": 0}
    assert set(hub.counts().values()) == {0}
    assert len(hub.timers) == 0
