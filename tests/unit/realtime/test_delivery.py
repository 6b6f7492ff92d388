"""Windows, resends, slow readers, merged frames and the latest only: what is sent when, without sleeping."""

import pytest

from app.identity.identity import Identity
from app.metrics import Metrics
from app.realtime import protocol
from app.realtime.hub import Hub
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.options import Options
from tests.unit.realtime.fakes import MemoryTransport
from tests.unit.realtime.test_hub import ADMIN


class House:
    """A hub whose time a test sets; nobody's jitter."""

    def __init__(self, **options):
        self.now = 0
        self.log = MemoryTopicLog(max_messages=100, max_bytes=1_000_000, max_topics=10)
        self.metrics = Metrics()
        self.hub = Hub(self.log, self.metrics, Options(**{"ack_timeout_ms": 100, "ack_max_retries": 2, **options}), NoJitter())
        self.transport = self.hub.transport = MemoryTransport()
        self.log.listen(lambda message: self.hub.announce(message, self.now))
        self.hub.connect("a", ADMIN)
        self.link = self.transport.links["a"]

    def say(self, **frame):
        self.hub.handle("a", protocol.parse(frame, 1024), self.now, lambda answer: None)

    def publish(self, count=1, size=1):
        for _ in range(count):
            self.hub.publish("t", b'"' + b"x" * size + b'"', self.now, None, None)

    def pass_ms(self, ms):
        end = self.now + ms
        while self.now < end:
            self.now += 5
            due = self.hub.tick(self.now)
            while due is not None and due <= self.now:
                due = self.hub.tick(self.now)

    def block(self):
        self.link.is_blocked, self.link.queued_bytes = True, 1950
        self.hub.blocked("a", self.now)

    def unblock(self):
        self.link.is_blocked, self.link.queued_bytes = False, 0
        self.hub.writable("a", self.now)

    def got(self):
        """What came since the last look: seqs, merged frames as (first, last), errors as their code."""
        frames, self.transport.sent["a"] = self.transport.sent["a"], []
        return [frame.get("code") or ((frame["first"], frame["last"]) if "first" in frame else frame["seq"]) for frame in frames]


class NoJitter:
    def random(self):
        return 0


def test_a_full_window_holds_back_until_something_is_acknowledged():
    house = House(ack_window_messages=3)
    house.say(type="subscribe", topic="t")
    house.publish(5)
    assert house.got() == [1, 2, 3]
    house.say(type="ack", topic="t", seq=1)
    assert house.got() == [4]
    house.say(type="ack", topic="t", seq=4)
    assert house.got() == [5]


def test_a_window_is_full_by_its_bytes_too():
    house = House(ack_window_bytes=1500)
    house.say(type="subscribe", topic="t")
    house.publish(3, size=1000)
    assert house.got() == [1, 2]


def test_what_is_not_acknowledged_is_sent_again_later_each_time_and_then_the_client_is_told():
    house = House()
    house.say(type="subscribe", topic="t")
    house.publish(2)
    times = []
    while "delivery_failed" not in (got := house.got()):
        times += [house.now] if got else []
        house.pass_ms(5)
    assert times == [0, 100, 300]
    assert house.now == 700
    house.publish()
    assert house.got() == [3]
    house.pass_ms(10_000)
    assert house.got() == []


def test_only_what_is_missing_is_sent_again():
    house = House()
    house.say(type="subscribe", topic="t")
    house.hub.publish("t", b"1", 0, "m1", None)
    house.hub.publish("t", b"2", 0, "m2", None)
    house.hub.publish("t", b"3", 0, "m3", None)
    house.say(type="ack", id="m2")
    house.got()
    house.pass_ms(100)
    assert house.got() == [1, 3]
    house.publish()
    assert house.got() == [4]


def test_an_acknowledgement_in_time_starts_the_time_anew():
    house = House()
    house.say(type="subscribe", topic="t")
    house.publish(2)
    house.pass_ms(90)
    house.say(type="ack", topic="t", seq=1)
    house.got()
    house.pass_ms(90)
    assert house.got() == []
    house.pass_ms(10)
    assert house.got() == [2]


@pytest.fixture
def narrow():
    house = House(slow_consumer_ms=1000)
    house.say(type="subscribe", topic="t", ack=False)
    house.publish()
    house.block()
    house.publish(4)
    assert house.got() == [1]
    return house


def test_who_reads_slowly_is_sent_to_again_when_there_is_room(narrow):
    narrow.unblock()
    assert narrow.got() == [2, 3, 4, 5]
    narrow.publish()
    assert narrow.got() == [6]


def test_who_takes_nothing_at_all_is_told_and_closed_and_who_takes_a_little_is_not(narrow):
    for _ in range(5):
        narrow.link.progress += 1
        narrow.pass_ms(990)
    assert (narrow.transport.closed, narrow.got()) == ([], [])
    narrow.pass_ms(2010)
    assert (narrow.transport.closed, narrow.got()) == (["a"], ["slow_consumer"])
    assert narrow.metrics.realtime_slow_consumers_total._value.get() == 1


def test_who_wants_the_latest_gets_it_with_what_was_skipped():
    house = House()
    house.say(type="subscribe", topic="t", ack=False, mode="latest")
    house.publish()
    house.block()
    house.publish(8)
    house.unblock()
    assert [frame.get("skipped") for frame in house.transport.sent["a"]] == [None, [2, 8]]
    assert house.got() == [1, 9]


def test_merged_frames_begin_where_messages_follow_one_another_fast():
    house = House()
    house.say(type="subscribe", topic="t", ack=False, batch=True)
    house.now = 100
    house.publish()
    assert house.got() == [1]
    house.publish(5)
    assert house.got() == []
    house.pass_ms(20)
    assert house.got() == [(2, 6)]
    house.pass_ms(20)
    house.publish()
    assert house.got() == [7]


def test_a_merged_frame_has_at_most_64_messages_and_64_kb():
    house = House()
    house.publish(70)
    house.say(type="subscribe", topic="t", ack=False, batch=True, since=0)
    house.pass_ms(10)
    assert house.got() == [(1, 64), (65, 70)]
    house.publish(20, size=10_000)
    house.pass_ms(40)
    assert house.got() == [71, (72, 77), (78, 83), (84, 89), 90]


def test_a_long_replay_takes_turns():
    house = House()
    house.publish(100)
    house.say(type="subscribe", topic="t", ack=False, since=0)
    assert house.got() == list(range(1, 65))
    house.publish()
    assert house.got() == []
    house.pass_ms(5)
    assert house.got() == list(range(65, 102))


def test_a_clock_that_is_set_back_holds_back_neither_a_resend_nor_a_merged_frame():
    house = House(ack_timeout_ms=100)
    house.now = 10_000_000
    house.say(type="subscribe", topic="t", batch=True)
    house.pass_ms(5)
    house.publish(3)
    assert house.got() == [1]
    house.now -= 3_600_000
    house.pass_ms(25)
    assert house.got() == [(2, 3)]
    house.pass_ms(100)
    assert house.got() == [(1, 3)]


def test_a_clock_that_is_set_back_does_not_lengthen_a_token():
    house = House()
    house.now = 10_000_000
    house.hub.connect("b", Identity(kind="user", user_id="u", expires_at=house.now + 2000))
    house.pass_ms(5)
    house.now -= 1500
    house.pass_ms(3490)
    assert house.transport.sent["b"] == []
    house.pass_ms(10)
    assert [frame["code"] for frame in house.transport.sent["b"]] == ["token_expired"]
