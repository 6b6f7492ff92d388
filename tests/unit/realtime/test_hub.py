"""Subscriptions as cursors: who gets what, in which order, and what is said where something is missing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ApiError
from app.identity.identity import Identity
from app.metrics import Metrics
from app.realtime import protocol
from app.realtime.hub import Hub
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.options import Options
from tests.apps import NOW
from tests.unit.realtime.fakes import MemoryTransport

ADMIN = Identity(kind="user", user_id="root", roles=("admin",))
READER = Identity(kind="user", user_id="r", subscribe_to=("t*",))


class House:
    """A hub with a log and a transport in memory; `say` is what a client does."""

    def __init__(self, max_topics=128, kept_messages=5, kept_topics=10):
        self.log = MemoryTopicLog(max_messages=kept_messages, max_bytes=100_000, max_topics=kept_topics)
        self.metrics = Metrics()
        self.hub = Hub(self.log, self.metrics, Options(max_topics=max_topics))
        self.log.listen(lambda message: self.hub.announce(message, NOW))
        self.transport = self.hub.transport = MemoryTransport()

    def connect(self, *connection_ids, identity=ADMIN):
        for connection_id in connection_ids:
            self.hub.connect(connection_id, identity)

    def say(self, connection_id, **fields):
        """The answer; it also stands among what was sent, so that its place can be seen."""
        answers = []

        def answer(frame):
            answers.append(frame)
            self.transport.send(connection_id, frame)

        self.hub.handle(connection_id, protocol.parse(fields, 1024), NOW, answer)
        (only,) = answers
        return only

    def refuses(self, connection_id, **fields):
        with pytest.raises(ApiError) as caught:
            self.say(connection_id, **fields)
        return caught.value.code

    def publish(self, topic="t", *numbers):
        for number in numbers or [0]:
            self.hub.publish(topic, str(number).encode(), NOW, None, None)

    def kinds(self, connection_id):
        """What a client got, shortly: ("event", seq), ("error", code), ("ack", topic)."""
        detail = {"event": "seq", "error": "code", "ack": "topic"}
        return [(frame["type"], frame.get(detail[frame["type"]])) for frame in self.transport.sent[connection_id]]

    def seqs(self, connection_id, topic="t"):
        return [frame["seq"] for frame in self.transport.sent[connection_id] if frame["type"] == "event" and frame["topic"] == topic]


@pytest.fixture
def house():
    house = House()
    house.connect("a", "b")
    return house


def gauge(house, name):
    return getattr(house.metrics, name)._value.get()


def test_a_subscriber_gets_what_is_published_afterwards(house):
    house.publish("t", 1)
    answer = house.say("a", type="subscribe", topic="t", id="1")
    epoch = house.log.head("t").epoch
    assert answer == {"type": "ack", "id": "1", "ok": True, "topic": "t", "seq": 1, "epoch": epoch}
    house.publish("t", 42)
    assert house.transport.sent["a"][1:] == [
        {"type": "event", "topic": "t", "payload": 42, "id": f"{epoch}:2", "seq": 2, "ts": NOW, "epoch": epoch}
    ]
    assert house.transport.sent["b"] == []


def test_a_message_is_handed_over_once_for_all_who_are_live(house):
    for connection_id in ("a", "b"):
        house.say(connection_id, type="subscribe", topic="t")
    house.publish("t")
    assert len(house.transport.batches) == 1
    assert house.seqs("a") == house.seqs("b") == [1]


def test_a_publisher_that_listens_sees_its_own_message_before_the_answer_and_in_everybodys_order(house):
    for connection_id in ("a", "b"):
        house.say(connection_id, type="subscribe", topic="t")
    answer = house.say("a", type="publish", topic="t", id="m1", payload={"x": 1})
    house.say("b", type="publish", topic="t", id="m2", payload=2)
    assert (answer["id"], answer["seq"]) == ("m1", 1)
    assert house.kinds("a") == [("ack", "t"), ("event", 1), ("ack", "t"), ("event", 2)]
    assert house.seqs("b") == [1, 2]


def test_a_repeated_publish_is_answered_as_the_first_and_sent_to_nobody(house):
    house.say("b", type="subscribe", topic="t")
    first = house.say("a", type="publish", topic="t", id="m1", payload=1)
    again = house.say("a", type="publish", topic="t", id="m1", payload=1)
    assert again == {**first, "duplicate": True}
    assert house.seqs("b") == [1]


def test_after_unsubscribe_nothing_more_comes(house):
    house.say("a", type="subscribe", topic="t")
    house.publish("t")
    answer = house.say("a", type="unsubscribe", topic="t", id="u")
    assert (answer["id"], answer["seq"]) == ("u", 1)
    house.publish("t")
    assert house.seqs("a") == [1]
    assert house.refuses("a", type="unsubscribe", topic="t") == "unknown_topic"


def test_after_a_disconnect_nothing_is_sent_or_counted(house):
    house.say("a", type="subscribe", topic="t")
    house.hub.disconnect("a")
    house.hub.disconnect("a")
    house.publish("t")
    assert house.seqs("a") == []
    assert house.hub.counts() == {"connections": 1, "subscriptions": 0, "topics": 0, "behind": 0, "stalled": 0}


def test_resuming_replays_what_was_missed_after_the_answer_and_before_anything_live(house):
    house.publish("t", 1, 2, 3)
    epoch = house.log.head("t").epoch
    answer = house.say("a", type="subscribe", topic="t", since=1, epoch=epoch)
    house.publish("t", 4)
    assert answer == {"type": "ack", "ok": True, "topic": "t", "seq": 1, "epoch": epoch, "head": 3, "recovered": True}
    assert house.kinds("a") == [("ack", "t"), ("event", 2), ("event", 3), ("event", 4)]


def test_a_message_published_during_a_replay_comes_once_and_in_its_place(house):
    house.publish("t", 1, 2)
    link = house.transport.links["a"]
    write, has_published = link.write, []

    def write_and_publish(batch):
        write(batch)
        if not has_published:
            has_published.append(True)
            house.publish("t", 3)

    link.write = write_and_publish
    house.say("a", type="subscribe", topic="t", since=0)
    house.publish("t", 4)
    assert house.seqs("a") == [1, 2, 3, 4]


def test_positions_older_than_the_log_are_a_gap_that_is_said_twice_and_the_rest_is_replayed(house):
    house.publish("t", *range(8))  # 4 to 8 are kept
    answer = house.say("a", type="subscribe", topic="t", id="1", since=1)
    assert (answer["recovered"], answer["reason"], answer["seq"], answer["head"]) == (False, "history_gap", 3, 8)
    error = house.transport.sent["a"][1]
    assert (error["code"], error["topic"], error["id"], error["from"], error["to"]) == ("history_gap", "t", "1", 2, 3)
    assert house.seqs("a") == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("position", [{"since": 2, "epoch": "another"}, {"since": 99}])
def test_another_epoch_or_a_position_past_the_head_is_said_and_all_that_is_kept_is_replayed(house, position):
    house.publish("t", 1, 2)
    answer = house.say("a", type="subscribe", topic="t", **position)
    assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
    assert house.kinds("a") == [("ack", "t"), ("error", "epoch_changed"), ("event", 1), ("event", 2)]


def test_subscribing_again_goes_on_where_the_subscription_stands(house):
    house.say("a", type="subscribe", topic="t")
    house.publish("t")
    assert house.say("a", type="subscribe", topic="t", mode="latest")["seq"] == 1
    house.publish("t")
    assert house.seqs("a") == [1, 2]
    assert house.hub.counts()["subscriptions"] == 1


def test_subscribing_again_with_a_position_replays_from_there(house):
    house.say("a", type="subscribe", topic="t")
    house.publish("t", 1, 2)
    house.say("a", type="subscribe", topic="t", since=1)
    house.publish("t", 3)
    assert house.seqs("a") == [1, 2, 2, 3]


def test_a_topic_that_was_forgotten_and_begins_anew_is_announced_to_who_listens():
    house = House(kept_topics=1)
    house.connect("a")
    house.say("a", type="subscribe", topic="t")
    house.publish("t", 1, 2)
    house.publish("other")
    house.publish("t", 3)
    assert house.kinds("a") == [("ack", "t"), ("event", 1), ("event", 2), ("error", "epoch_changed"), ("event", 1)]


def test_an_error_that_nobody_can_use_is_not_sent_where_nothing_was_received_yet():
    house = House(kept_topics=1)
    house.connect("a")
    house.say("a", type="subscribe", topic="t")
    house.publish("x")
    house.publish("y")  # x is forgotten: the next epoch begins
    house.publish("t")
    assert house.kinds("a") == [("ack", "t"), ("event", 1)]


def test_a_connection_has_a_limited_number_of_topics():
    house = House(max_topics=2)
    house.connect("a")
    house.say("a", type="subscribe", topic="t1")
    house.say("a", type="subscribe", topic="t2")
    house.say("a", type="subscribe", topic="t1")
    assert house.refuses("a", type="subscribe", topic="t3") == "limit_exceeded"
    house.say("a", type="unsubscribe", topic="t1")
    house.say("a", type="subscribe", topic="t3")


def test_who_may_not_is_refused_and_nothing_happens(house):
    house.connect("r", identity=READER)
    assert house.refuses("r", type="subscribe", topic="secret") == "forbidden"
    assert house.refuses("r", type="publish", topic="t", id="1", payload=1) == "forbidden"
    house.publish("secret")
    assert house.transport.sent["r"] == []
    assert house.log.head("t").seq == 0


def test_acknowledgements_count_up_to_what_was_sent(house):
    house.say("a", type="subscribe", topic="t")
    house.say("a", type="subscribe", topic="u")
    house.publish("t", 1, 2)
    house.publish("u", 1)
    assert house.say("a", type="ack", topic="t", seq=1) == {"type": "ack", "ok": True}
    assert house.say("a", type="ack", acks={"t": 2, "u": 1})["ok"]
    assert house.say("a", type="ack", topic="t", seq=1)["ok"]


@pytest.mark.parametrize("wrong", [{"topic": "t", "seq": 3}, {"acks": {"t": 3}}, {"id": "never"}])
def test_acknowledging_what_was_never_sent_is_a_bad_ack(house, wrong):
    house.say("a", type="subscribe", topic="t")
    house.publish("t", 1, 2)
    assert house.refuses("a", type="ack", **wrong) == "bad_ack"


@pytest.mark.parametrize("wrong", [{"topic": "x", "seq": 0}, {"acks": {"t": 1, "x": 1}}])
def test_acknowledging_a_topic_without_a_subscription_is_an_unknown_topic(house, wrong):
    house.say("a", type="subscribe", topic="t")
    house.publish("t", 1, 2)
    assert house.refuses("a", type="ack", **wrong) == "unknown_topic"


def subscription(house, connection_id="a", topic="t"):
    return house.hub.members[connection_id].subscriptions[topic]


def test_one_wrong_position_and_nothing_of_the_frame_counts(house):
    house.say("a", type="subscribe", topic="t")
    house.publish("t", 1)
    house.refuses("a", type="ack", acks={"t": 1, "x": 1})
    assert subscription(house).acked == 0


def test_single_messages_may_be_acknowledged_out_of_order(house):
    house.say("a", type="subscribe", topic="t")
    for id in ("m1", "m2", "m3"):
        house.say("b", type="publish", topic="t", id=id, payload=0)
    assert house.say("a", type="ack", id="m2") == {
        "type": "ack", "id": "m2", "ok": True, "topic": "t", "seq": 2, "epoch": house.log.head("t").epoch,
    }  # fmt: skip
    assert subscription(house).acked == 0
    house.say("a", type="ack", id="m1")
    assert (subscription(house).acked, set(subscription(house).unacked)) == (2, {3})
    assert house.refuses("a", type="ack", id="m1") == "bad_ack"


def test_a_message_that_was_published_but_not_sent_to_this_client_cannot_be_acknowledged(house):
    house.say("b", type="publish", topic="t", id="m1", payload=0)
    house.say("a", type="subscribe", topic="t")
    assert house.refuses("a", type="ack", id="m1") == "bad_ack"


def test_the_metrics_follow_connections_subscriptions_and_messages(house):
    house.say("a", type="subscribe", topic="t")
    house.say("b", type="subscribe", topic="t")
    house.publish("t", *range(7))
    house.connect("c")
    house.say("c", type="subscribe", topic="t", since=0)
    assert gauge(house, "realtime_connections") == 3
    assert gauge(house, "realtime_subscriptions") == 3
    assert gauge(house, "realtime_published_total") == 7
    assert gauge(house, "realtime_delivered_total") == 2 * 7 + 5
    assert house.metrics.realtime_errors_total.labels("history_gap")._value.get() == 1
    for connection_id in ("a", "b", "c"):
        house.hub.disconnect(connection_id)
    assert gauge(house, "realtime_connections") == gauge(house, "realtime_subscriptions") == 0


def test_a_transport_that_loses_a_client_in_the_middle_of_a_delivery_disturbs_nobody(house):
    for connection_id in ("a", "b"):
        house.say(connection_id, type="subscribe", topic="t")
    link = house.transport.links["a"]
    write = link.write

    def losing(batch):
        house.hub.disconnect("a")
        write(batch)

    link.write = losing
    house.publish("t", 1, 2)
    assert house.seqs("b") == [1, 2]
    assert house.seqs("a") == [1]


class CarefulClient:
    """Holds the hub to its promise: an event follows the one before it, unless an error said why not.

    A position is (epoch, seq), or None after `epoch_changed`, when whatever comes first is as good as anything.
    """

    def __init__(self, house, connection_id):
        self.house, self.id, self.positions = house, connection_id, {}
        house.connect(connection_id)

    def read(self):
        for frame in self.house.transport.sent.pop(self.id, []):
            topic = frame["topic"]
            if frame["type"] == "ack":
                self.positions.setdefault(topic, (frame["epoch"], frame["seq"]))
            elif frame["type"] == "event":
                self.check(self.positions[topic], frame["epoch"], frame["seq"])
                self.positions[topic] = (frame["epoch"], frame["seq"])
            elif frame["code"] == "history_gap":
                assert frame["from"] == self.positions[topic][1] + 1
                self.positions[topic] = (self.positions[topic][0], frame["to"])
            else:
                assert frame["code"] == "epoch_changed"
                self.positions[topic] = None

    def check(self, position, epoch, seq):
        nothing_to_lose = position is not None and position[1] == 0 and seq == 1
        assert position is None or position == (epoch, seq - 1) or nothing_to_lose

    def subscribe(self, topic):
        if topic not in self.positions:
            self.house.say(self.id, type="subscribe", topic=topic)

    def unsubscribe(self, topic):
        if topic in self.positions:
            self.house.say(self.id, type="unsubscribe", topic=topic)
            self.read()
            del self.positions[topic]

    def reconnect(self):
        self.house.hub.disconnect(self.id)
        self.house.connect(self.id)
        for topic, position in self.positions.items():
            epoch, since = position or ("lost", 0)
            self.house.say(self.id, type="subscribe", topic=topic, since=since, epoch=epoch)

    def has_everything(self):
        heads = {topic: self.house.log.head(topic) for topic in self.positions}
        return all(not head.seq or self.positions[topic] == (head.epoch, head.seq) for topic, head in heads.items())


topics = st.sampled_from(["t", "u", "v"])
steps = st.one_of(
    st.tuples(st.just("publish"), topics),
    st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), topics),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("miss"), topics, st.integers(1, 6)),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=60), st.integers(1, 4), st.integers(1, 3))
def test_a_client_that_resumes_sees_every_message_once_in_order_or_is_told_what_is_missing(script, kept_messages, kept_topics):
    house = House(kept_messages=kept_messages, kept_topics=kept_topics)
    client = CarefulClient(house, "a")
    for step, *arguments in script:
        if step == "publish":
            house.publish(*arguments)
        elif step == "miss":
            house.hub.disconnect("a")
            house.publish(arguments[0], *range(arguments[1]))
            client.reconnect()
        else:
            getattr(client, step)(*arguments)
        client.read()
    assert client.has_everything()
