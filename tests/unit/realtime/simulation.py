"""A world in one thread: a hub with its log, clients, and a network between them that loses, delays, doubles and stalls.

Everything random comes from one seed, and time is a number, so that a run can be repeated exactly. The wire checks what
the hub sends while it sends it; `World.finish` heals the network and checks what every client has at the end.
"""

import heapq
from collections import Counter, deque
from itertools import count
from random import Random

import orjson

from app.errors import ApiError
from app.identity import Identity
from app.metrics import Metrics
from app.realtime import protocol
from app.realtime.hub import Hub
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.rules import Rules

ADMIN = Identity(kind="user", user_id="root", roles=("admin",))
TOPICS = ("a", "b")
FRAME_BYTES = 700  # the most that one frame of these worlds has


class Link:
    """One connection: frames wait here until the client has read them, `rate` bytes a millisecond; 0 is one who does not read."""

    def __init__(self, client, rate):
        self.client, self.rate, self.is_open = client, rate, True
        self.queue, self.bytes, self.progress, self.wants_room = deque(), 0, 0, False
        self.highest, self.told = {}, {}  # by topic: what was sent of it, and how far a gap was told
        self.times = Counter()  # how often each (topic, epoch, seq) was sent since the client last subscribed


class Wire:
    """The hub's transport. It holds every frame to the promises that concern the sending side."""

    def __init__(self, world):
        self.world = world
        self.links = {}

    def send(self, connection_id, frame):
        self.send_many([connection_id], frame)

    def send_many(self, connection_ids, frame):
        text = orjson.dumps(frame)
        for connection_id in connection_ids:
            link = self.links[connection_id]
            assert link.is_open, "nothing may be sent to who has gone"
            self._check(link, orjson.loads(text))
            link.queue.append(text)
            link.bytes += len(text)
            if frame["type"] == "event":
                limit = self.world.rules.send_buffer_bytes
                assert link.bytes <= limit + 2 * protocol_slack(frame) or len(link.queue) == 1, f"{link.bytes} of {limit} bytes wait"

    def queued_bytes(self, connection_id):
        return self.links[connection_id].bytes

    def progress(self, connection_id):
        return self.links[connection_id].progress

    def notify_when_writable(self, connection_id):
        self.links[connection_id].wants_room = True

    def close(self, connection_id):
        self.world.later(0, lambda: self.world.drop(connection_id))

    def _check(self, link, frame):
        topic = frame.get("topic")
        if frame["type"] == "ack" and topic:
            link.highest[topic] = (frame["epoch"], frame["seq"])
        elif frame["type"] == "error" and frame["code"] == "epoch_changed":
            link.highest[topic] = (frame["epoch"], link.highest[topic][1] if frame.get("id") else 0)
        elif frame["type"] == "error" and frame["code"] == "history_gap":
            epoch, seq = link.highest[topic]
            link.highest[topic] = (epoch, max(seq, frame["to"]))
        elif frame["type"] == "event":
            for event in frame.get("events", [frame]):
                self._check_event(link, topic, frame["epoch"], event)

    def _check_event(self, link, topic, epoch, event):
        """What is new comes without a hole and in order; what is sent again is sent as often as allowed and no more."""
        known, seq = link.highest[topic]
        if epoch != known and seq == 0:
            known = epoch  # nothing to lose yet
        assert epoch == known, f"an event of epoch {epoch} in {known}"
        skipped = event.get("skipped")
        if event["seq"] > seq:
            assert event["seq"] == seq + 1 or (skipped and skipped == [seq + 1, event["seq"] - 1]), f"{event['seq']} after {seq}"
            link.highest[topic] = (epoch, event["seq"])
        link.times[topic, epoch, event["seq"]] += 1
        assert link.times[topic, epoch, event["seq"]] <= 1 + self.world.rules.ack_max_retries, "more often than allowed"


def protocol_slack(frame):
    return sum(FRAME_BYTES for _ in frame.get("events", [frame]))


class Client:
    """What a careful client does: positions, a buffer for what comes too early, acknowledgements together, resuming."""

    def __init__(self, world, name, **manner):
        self.world, self.name, self.manner = world, name, manner
        self.acks = world.random.random() < 0.85  # else it never acknowledges
        self.positions, self.early, self.seen, self.stuck_since = {}, {}, {}, {}
        self.past = set()  # epochs that ended; on a network that reorders, something of them may still come
        self.connection_id, self.link, self.ack_planned = None, None, False
        self.topics = [topic for topic in TOPICS if world.random.random() < 0.8] or ["a"]
        self.later_topics = {topic for topic in self.topics if world.random.random() < 0.3}

    @property
    def is_lossless(self):
        return not self.acks or self.manner.get("mode") == "latest" or self.manner.get("ack") is False

    def connect(self):
        world = self.world
        self.connection_id = f"{self.name}#{next(world.numbers)}"
        self.link = world.wire.links[self.connection_id] = Link(self, world.random.choice([0.5, 5, 50, 1000]))
        world.hub.connect(self.connection_id, ADMIN)
        for topic in self.topics:
            self.subscribe(topic)

    def subscribe(self, topic):
        """A second time, too: it goes on after what it has."""
        epoch, since = self.positions.get(topic, (None, None))
        for key in [key for key in self.link.times if key[0] == topic]:
            del self.link.times[key]
        self.say(type="subscribe", topic=topic, id="s", epoch=epoch, since=since, **self.manner)

    def say(self, **frame):
        try:
            parsed = protocol.parse(frame, 1024)
            self.world.hub.handle(self.connection_id, parsed, self.world.now, lambda answer: self.answered(frame, answer))
        except ApiError as error:
            assert error.code == "bad_ack" and frame["type"] == "ack", error

    def answered(self, frame, answer):
        if frame["type"] == "subscribe":
            self.world.wire.send(self.connection_id, answer)

    def receive(self, frame):
        topic = frame.get("topic")
        if frame["type"] == "event":
            for event in frame.get("events", [frame]):
                self.receive_event(topic, frame["epoch"], event)
            self.plan_ack()
        elif frame["type"] == "ack":
            if topic not in self.positions or self.positions[topic][0] != frame["epoch"]:
                self.move(topic, frame["epoch"], frame["seq"])
        elif frame["code"] == "epoch_changed":
            if self.positions[topic][0] != frame["epoch"]:
                self.move(topic, frame["epoch"], 0)
        elif frame["code"] == "history_gap":
            self.miss(topic, frame["to"])
        elif frame["code"] == "delivery_failed":
            assert frame["from"] <= frame["to"]
            if self.acks:
                self.subscribe(topic)

    def receive_event(self, topic, epoch, event):
        if self.positions[topic][0] != epoch:
            if self.positions[topic][1] != 0 or event["seq"] != 1 or (topic, epoch) in self.past:
                return
            self.move(topic, epoch, 0)
        if event.get("skipped"):
            self.miss(topic, event["skipped"][1])
        if event["seq"] > self.positions[topic][1]:
            self.early.setdefault(topic, {})[event["seq"]] = event
        self.close_up(topic)

    def move(self, topic, epoch, seq):
        if topic in self.positions:
            self.past.add((topic, self.positions[topic][0]))
        self.positions[topic] = (epoch, seq)
        self.early[topic] = {}

    def miss(self, topic, last):
        epoch, seq = self.positions[topic]
        for number in range(seq + 1, last + 1):
            if number in self.early.get(topic, {}):
                self.see(topic, epoch, number)
        self.positions[topic] = (epoch, max(seq, last))
        self.close_up(topic)

    def close_up(self, topic):
        epoch, seq = self.positions[topic]
        early = self.early.setdefault(topic, {})
        while seq + 1 in early:
            seq += 1
            self.see(topic, epoch, seq)
        self.positions[topic] = (epoch, seq)
        for old in [old for old in early if old <= seq]:
            del early[old]
        if not early:
            self.stuck_since.pop(topic, None)
        else:
            self.stuck_since.setdefault(topic, self.world.now)

    def see(self, topic, epoch, seq):
        assert self.early[topic][seq]["payload"]["n"] == self.world.published[epoch, topic, seq], "another message under this number"
        last = self.seen.get((topic, epoch), 0)
        assert seq > last, f"{self.name} saw {seq} after {last} of {topic}"
        self.seen[topic, epoch] = seq

    def plan_ack(self):
        if self.acks and not self.ack_planned:
            self.ack_planned = True
            self.world.later(self.world.random.randint(1, 60), self.send_ack)

    def send_ack(self):
        self.ack_planned = False
        connection_id = self.connection_id
        if connection_id is None:
            return
        positions = {topic: seq for topic, (_, seq) in self.positions.items()}
        for _ in range(self.world.how_many()):
            self.world.later(self.world.latency(), lambda: connection_id == self.connection_id and self.say(type="ack", acks=positions))

    def look(self):
        """A hole that does not fill is asked for."""
        for topic, since in list(self.stuck_since.items()):
            if self.connection_id and self.world.now - since > 1000:
                self.stuck_since[topic] = self.world.now
                self.subscribe(topic)


class World:
    def __init__(self, seed):
        self.random = random = Random(seed)
        self.now, self.agenda, self.numbers, self.published = 0, [], count(), {}
        self.rules = Rules(
            ack_window_messages=random.choice([1, 3, 16]),
            ack_window_bytes=random.choice([1024, 100_000]),
            ack_timeout_ms=200,
            ack_max_retries=random.choice([0, 2, 5]),
            send_buffer_bytes=random.choice([1500, 10_000]),
            connection_burst=1_000_000,
            slow_consumer_ms=random.choice([500, 5000]),
        )
        self.loss = random.choice([0, 0, 0.1, 0.3])
        self.jitter = random.choice([0, 5, 50])
        self.limits = {"max_messages": random.choice([4, 30, 200]), "max_bytes": 100_000, "max_topics": 4}
        self.start()
        manners = ({}, {}, {"batch": True}, {"mode": "latest"}, {"ack": False}, {"batch": True, "ack": False})
        self.clients = [Client(self, f"c{number}", **random.choice(manners)) for number in range(random.randint(1, 4))]

    def start(self):
        self.log = MemoryTopicLog(**self.limits)
        self.hub = Hub(self.log, METRICS, self.rules, Random(self.random.random()))
        self.wire = self.hub.transport = Wire(self)
        self.log.listen(lambda message: self.hub.announce(message, self.now))

    def run(self):
        for client in self.clients:
            client.connect()
        for _ in range(self.random.randint(10, 60)):
            self.act()
            self.pass_ms(self.random.choice([0, 1, 5, 30, 300]))
        self.finish()

    def act(self):
        random = self.random
        client = random.choice(self.clients)
        kind = random.random()
        if kind < 0.6:
            for _ in range(random.choice([1, 1, 3, 20])):
                self.publish(random.choice(TOPICS))
        elif kind < 0.7 and client.connection_id:
            self.drop(client.connection_id)
        elif kind < 0.8 and client.link:
            client.link.rate = random.choice([0, 0.5, 5, 1000])
        elif kind < 0.85 and client.connection_id:
            client.subscribe(random.choice(client.topics))
        elif kind < 0.9:
            for number in range(4):
                self.publish(f"junk{number}")  # so many that all others are forgotten
        elif kind < 0.92:
            self.crash()

    def publish(self, topic):
        number = next(self.numbers)
        payload = orjson.dumps({"n": number, "x": "x" * self.random.choice([0, 0, 100, 400])})
        head = self.log.head(topic)
        self.published[head.epoch, topic, head.seq + 1] = number
        facts = self.hub.publish(topic, payload, self.now, None, None)
        assert (facts["epoch"], facts["seq"]) == (head.epoch, head.seq + 1)

    def crash(self):
        """Everything of the server is gone, and another one is there."""
        for client in self.clients:
            if client.connection_id:
                self.lose(client)
        self.start()

    def drop(self, connection_id):
        link = self.wire.links.pop(connection_id, None)
        if link is not None:
            self.hub.disconnect(connection_id)
            self.lose(link.client)

    def lose(self, client):
        client.link.is_open = False
        client.connection_id = client.link = None
        self.later(self.random.randint(0, 200), client.connect)

    # The network

    def latency(self):
        return 1 + self.random.randint(0, self.jitter)

    def how_many(self):
        return self.random.choices([0, 1, 2], [self.loss, 1 - self.loss * 1.1, self.loss / 10])[0]

    def carry(self, elapsed):
        """Every client reads as much as it can in this time."""
        for connection_id, link in list(self.wire.links.items()):
            budget = link.rate * elapsed
            while link.queue and link.is_open and budget > 0:
                text = link.queue.popleft()
                budget -= len(text)
                link.bytes -= len(text)
                link.progress += 1
                self.arrive(link, orjson.loads(text))
            if link.wants_room and link.is_open and link.bytes <= self.rules.send_buffer_bytes // 2:
                link.wants_room = False
                self.hub.writable(connection_id, self.now)

    def arrive(self, link, frame):
        """Events suffer; what the server says beside them comes in order, as over TCP all of it does."""
        if frame["type"] != "event" or link.client.is_lossless:
            link.client.receive(frame)
            return
        for _ in range(self.how_many()):
            self.later(self.latency() - 1, lambda: link.is_open and link.client.receive(frame))

    # Time

    def later(self, ms, call):
        heapq.heappush(self.agenda, (self.now + ms, next(self.numbers), call))

    def pass_ms(self, ms):
        end = self.now + ms
        while True:
            due = self.hub.tick(self.now)
            step = min(end, self.now + 10, *(at for at, _, _ in self.agenda[:1]), *([] if due is None else [due]))
            step = max(step, self.now + 1)
            if step > end:
                break
            self.carry(step - self.now)
            self.now = step
            while self.agenda and self.agenda[0][0] <= self.now:
                heapq.heappop(self.agenda)[2]()
            for client in self.clients:
                client.look()
            self.check_bounds()

    def check_bounds(self):
        counts = self.hub.counts()
        merges = len(TOPICS)  # those of topics that everybody has just left, until they are due
        assert len(self.hub.timers) <= 3 * counts["connections"] + counts["subscriptions"] + merges
        for connection in self.hub.members:
            for subscription in connection.subscriptions.values():
                assert len(subscription.unacked) <= self.rules.ack_window_messages
                assert subscription.unacked_bytes == sum(subscription.unacked.values())
                assert subscription.unacked_bytes < self.rules.ack_window_bytes + 16 * FRAME_BYTES

    def finish(self):
        """The network heals. Whoever is connected then has everything up to the head, but for what it was told."""
        self.loss = self.jitter = 0
        for _ in range(400):
            for client in self.clients:
                if client.link:
                    client.link.rate = 1000
            self.pass_ms(100)
            if not self.agenda and self.is_settled():
                return
        raise AssertionError(f"not settled: {[(client.name, client.positions, client.manner) for client in self.clients]}")

    def is_settled(self):
        return all(client.connection_id and self.has_everything(client) for client in self.clients)

    def has_everything(self, client):
        heads = {topic: self.log.head(topic) for topic in client.topics}
        return all(head.seq == 0 or client.positions.get(topic) == (head.epoch, head.seq) for topic, head in heads.items())


METRICS = Metrics()
