"""The service that other parts use, with and without a server behind it."""

import pytest

from app.errors import ApiError
from app.identity import Identity
from app.metrics import Metrics
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.protocol import Subscribe
from app.realtime.realtime import Realtime
from app.realtime.rules import Rules
from tests.apps import NOW, Clock
from tests.unit.realtime.fakes import MemoryTransport


@pytest.fixture
def realtime():
    log = MemoryTopicLog(max_messages=10, max_bytes=10_000, max_topics=10)
    return Realtime(log, Clock(), Metrics(), Rules(max_topics=5, max_payload_bytes=1024))


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
