"""The server, the network and the time of one run."""

import heapq
from itertools import count
from random import Random

import orjson

from app.metrics import Metrics
from app.realtime.archive import NoArchive
from app.realtime.hub import Hub
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.options import Options
from tests.apps import NOW
from tests.unit.realtime.simulation import promises
from tests.unit.realtime.simulation.client import TOPICS, Client
from tests.unit.realtime.simulation.disk import DURABLE, Disk, SlowArchive
from tests.unit.realtime.simulation.wire import Wire

JUMPS_MS = (-86_400_000, -3_600_000, -2000, -900, 900, 3_600_000)
PUBLISHERS = ((None, True), ("service", True), ("u1", False), ("u1", False), ("u2", False))
METRICS = Metrics()


class World:
    def __init__(self, seed):
        self.random = random = Random(seed)
        self.now, self.agenda, self.numbers, self.published = 0, [], count(), {}
        self.options = Options(
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
        self.limits = {"max_messages": random.choice([4, 30, 200]), "max_bytes": 100_000, "max_topics": 4, "max_ids": 20}
        self.has_durable = random.random() < 0.5
        self.disk, self.history, self.ahead = Disk(), {topic: [] for topic in TOPICS}, NOW
        self.was_put_back, self.last_durable = False, None
        self.start()
        manners = ({}, {}, {"batch": True}, {"mode": "latest"}, {"ack": False}, {"batch": True, "ack": False})
        self.clients = [Client(self, f"c{number}", **random.choice(manners)) for number in range(random.randint(1, 4))]

    def start(self):
        self.archive = SlowArchive(self) if self.has_durable else NoArchive()
        self.log = MemoryTopicLog(**self.limits, sequences=self.disk if self.has_durable else None)
        self.hub = Hub(self.log, METRICS, self.options, Random(self.random.random()), self.archive)
        self.wire = self.hub.transport = Wire(self)
        self.log.listen(self.announce)
        if self.has_durable:
            self.archive.open()

    def announce(self, message):
        self.archive.add(message)
        self.hub.announce(message, self.clock)

    @property
    def clock(self):
        """What the server takes for the time; `now` goes on whatever it is set to."""
        return self.now + self.ahead

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
        elif kind < 0.93:
            self.end(random.choice(["stop", "stop", "kill", "kill", "crash", "put back"]))
            self.repeat()
        elif kind < 0.96:
            self.disk.is_away = not self.disk.is_away
        elif kind < 0.97:
            self.ahead += random.choice(JUMPS_MS)

    def publish(self, topic):
        number = next(self.numbers)
        payload = orjson.dumps({"n": number, "x": "x" * self.random.choice([0, 0, 100, 400])})
        head = self.log.head(topic)
        place = (head.epoch, topic, head.seq + 1)
        assert place not in self.published, "a number is given twice"
        self.published[place] = number
        self.history.setdefault(topic, []).append((head.epoch, head.seq + 1))
        user, is_trusted = self.random.choice(PUBLISHERS)
        with (
            promises.the_server_loses_nothing_to(self, user, is_trusted),
            promises.no_lighter_user_loses_a_topic(self.log, user, is_trusted),
        ):
            facts = self.hub.publish(topic, payload, self.clock, f"m{number}", user, is_trusted)
        promises.check_who_holds_what(self.log)
        assert (facts["epoch"], facts["seq"]) == (head.epoch, head.seq + 1)
        if topic == DURABLE:
            self.last_durable = (topic, payload, f"m{number}", user, is_trusted), (topic, facts["epoch"], facts["seq"])

    def repeat(self):
        """What was published last, by a publisher that was not answered: it stands there once."""
        if self.last_durable is None or self.disk.is_away:
            return
        (topic, payload, *publisher), place = self.last_durable
        if place in self.disk.stored:
            facts = self.hub.publish(topic, payload, self.clock, *publisher)
            assert facts == {"topic": topic, "seq": place[2], "epoch": place[1], "duplicate": True}, "a repeated message is a new one"

    def note_recovered(self, topic, epoch, since):
        promises.check_nothing_was_elsewhere(self, topic, epoch, since)

    def end(self, how):
        """Of the server: its memory is gone, and another one is there. Its machine may be put back to how it once was. A kill may
        come between a number and its message; a crash of the machine takes what was not synced, and then nothing vouches for the
        numbers."""
        for client in self.clients:
            if client.connection_id:
                self.lose(client)
        if self.has_durable:
            if how in ("stop", "put back"):
                self.disk.is_away = False  # or its spool takes it
                self.archive.flush()
                self.was_put_back = how == "put back" and self.disk.snapshot is not None
                if self.was_put_back:
                    self.disk.places = dict(self.disk.snapshot)
                elif self.random.random() < 0.5:
                    self.disk.snapshot = dict(self.disk.places)
            elif how == "kill" and DURABLE in self.disk.places and self.random.random() < 0.3:
                epoch, seq = self.disk.places[DURABLE]
                self.disk.places[DURABLE] = (epoch, seq + 1)
            elif how == "crash":
                self.disk.places.clear()
            self.archive.buffer = []
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
                link.queued_bytes -= len(text)
                link.progress += 1
                self.arrive(link, orjson.loads(text))
            if link.is_blocked and link.is_open and link.queued_bytes <= self.options.send_buffer_bytes // 4:
                link.is_blocked = False
                self.hub.writable(connection_id, self.clock)

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
            due = self.hub.tick(self.clock)
            due = None if due is None else due - self.ahead
            busy = [self.now + 10] if self.is_busy() else []  # else nothing happens until something is due
            step = min([end, *busy, *(at for at, _, _ in self.agenda[:1]), *([] if due is None else [due])])
            step = max(step, self.now + 1)
            if step > end:
                break
            self.carry(step - self.now)
            self.now = step
            while self.agenda and self.agenda[0][0] <= self.now:
                heapq.heappop(self.agenda)[2]()
            for client in self.clients:
                client.look()
            promises.check_bounds(self)

    def is_busy(self):
        return any(link.queue or link.is_blocked for link in self.wire.links.values()) or any(client.stuck_since for client in self.clients)

    def finish(self):
        """The network heals. Whoever is connected then has everything up to the head, but for what it was told."""
        self.loss = self.jitter = 0
        self.disk.is_away = False
        for _ in range(400):
            for client in self.clients:
                if client.link:
                    client.link.rate = 1000
            self.pass_ms(100)
            if not self.agenda and self.is_settled():
                return promises.check_that_nothing_is_left(self)
        raise AssertionError(f"not settled: {[(client.name, client.positions, client.manner) for client in self.clients]}")

    def is_settled(self):
        return all(client.connection_id and self.has_everything(client) for client in self.clients)

    def has_everything(self, client):
        heads = {topic: self.log.head(topic) for topic in client.topics}
        return all(head.seq == 0 or client.positions.get(topic) == (head.epoch, head.seq) for topic, head in heads.items())
