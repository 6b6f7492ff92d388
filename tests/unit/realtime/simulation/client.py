"""The receiving side."""

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime import protocol
from tests.unit.realtime.simulation.wire import Link

TOPICS = ("a", "b")
ADMIN = Identity(kind="user", user_id="root", roles=("admin",))


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
            self.world.hub.handle(self.connection_id, parsed, self.world.clock, lambda answer: self.answered(frame, answer))
        except ApiError as error:
            assert error.code in ("bad_ack", "unknown_topic") and frame["type"] == "ack", error

    def answered(self, frame, answer):
        if frame["type"] == "subscribe":
            if answer.get("recovered"):
                assert (answer["seq"], answer["epoch"]) == (frame["since"], frame["epoch"]), "it begins elsewhere and does not say so"
                self.world.note_recovered(frame["topic"], frame["epoch"], frame["since"])
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
