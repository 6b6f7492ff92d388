"""A caller with many wishes, a storm of two minutes, then calm; at the end the client's promises are checked. The twin of run.js."""

import math
import random
import traceback

from app.sdk.python import ConnectRefused, PublishFailed, RealtimeClient, SubscribeFailed
from app.sdk.python import subscriptions as module
from tests.unit.sdk.client_simulation.server import Server, Sio, refusal
from tests.unit.sdk.client_simulation.virtual_time import VirtualTime

TOPICS = ["a", "b", "c", "__proto__", "secret"]
ENDED = ("forbidden", "bad_request", "limit_exceeded")
STORM_S = 120
CALM_S = 240
NONSENSE = [None, 7, {}, {"type": "event"}, {"type": "event", "topic": "a", "seq": "x"}, {"type": "error"}, {"type": "ack", "topic": "a"}]


class Listener:
    def __init__(self, topic, place, made):
        self.topic, self.place, self.made = topic, place, made
        self.seen, self.is_left, self.is_ended = [], False, False


class World:
    def __init__(self, seed):
        random.seed(seed)  # the client's own
        self.random = random.Random(seed)
        self.time = VirtualTime()
        self.server = Server(self.time, self.random)
        self.server.faults = self.random.choice([0, 0.05, 0.2, 0.4])
        self.server.latency_s = self.random.choice([0.001, 0.02, 0.3, 1.2])
        self.server.max_topics = self.random.choice([3, 5, 128])
        self.is_narrow = self.chance(0.25)
        if self.is_narrow:
            self.server.bytes_per_s, self.server.max_frame_bytes = 3500, 64_000
        module.MAX_CALLS = self.random.choice([4, 20, 4096])
        self.handlers_are_slow = self.random.random() < 0.3
        self.listeners, self.publishes, self.promises, self.errors, self.states, self.broken = [], [], [], [], [], []
        self.is_stormy, self.client, self.most_threads = True, None, 0

    def run(self):
        for step in (self.start, self.finish):
            try:
                step()
            except Exception:
                self.broken.append(traceback.format_exc())
        return self.broken

    def check(self, is_true, sentence):
        if not is_true and len(self.broken) < 5:
            self.broken.append(f"{self.time.time:.3f} s: {sentence}")

    def chance(self, part):
        return self.random.random() < part

    def token(self):
        kind = self.random.choice(["fresh", "slow", "slower", "expired", "fails"]) if self.is_stormy else "fresh"
        self.time.sleep({"slow": 0.5, "slower": 20}.get(kind, 0))
        if kind == "fails":
            raise RuntimeError("no token")
        return "expired" if kind == "expired" else "fresh"

    def start(self):
        self.time.start(self.connect, "caller")
        for _ in range(40):
            self.time.later(self.random.uniform(0, STORM_S), self.act)
        for n in range(60):
            self.time.later(self.random.uniform(0, STORM_S), lambda n=n: self.server.append(self.random.choice(TOPICS), f"backend{n}", n))
        for _ in range(6):
            self.time.later(self.random.uniform(0, STORM_S), self.trouble)
        self.time.run(STORM_S)

    def connect(self):
        options = {"token": self.token, "sio": Sio(self.server), "on_state": self.on_state, "on_error": self.on_error, "threads": self.time}
        while self.client is None:
            try:
                self.client = RealtimeClient("http://nowhere", give_up_s=1000, max_frame_bytes=self.server.max_frame_bytes, **options)
            except ConnectRefused as error:
                self.check(isinstance(error.answer["code"], str), "refused without a code")
                self.states.clear()

    def on_state(self, state, detail):
        self.states.append(state)
        if self.chance(0.02):
            raise RuntimeError("on_state fails")

    def on_error(self, error):
        self.errors.append((self.time.time, error.get("topic"), error["code"]))

    def act(self):
        self.most_threads = max(self.most_threads, len(self.time.running))
        if self.client is None:
            return
        kind = self.random.choice(["subscribe", "subscribe", "subscribe", "unsubscribe", "unsubscribe", "publish", "publish", "again"])
        if kind == "subscribe":
            self.subscribe(self.random.choice(TOPICS))
        elif kind == "publish":
            self.time.start(self.publish, "caller")
        elif self.listeners:
            listener = self.random.choice(self.listeners)
            if not listener.is_left:
                self.leave(listener)
            if kind == "again":
                self.subscribe(listener.topic)

    def promise(self, name, within_s, wait):
        """`wait` blocks a virtual thread of its own."""
        entry = [name, self.time.time, within_s, None]
        self.promises.append(entry)

        def waiting():
            try:
                wait()
            except (PublishFailed, SubscribeFailed) as error:
                self.check(isinstance(error.code, str), f"{name} fails without a code")
            entry[3] = self.time.time

        self.time.start(waiting, "caller")

    def subscribe(self, topic):
        epoch = self.server.log(topic).epoch
        places = [self.client.position(topic), {"since": 2, "epoch": "E1"}, {"since": 900, "epoch": epoch}]
        listener = Listener(topic, self.random.choice(places) if self.chance(0.3) else None, self.time.time)

        def handler(payload, message):
            self.check(not listener.is_left, f"a handler of {topic} is called after it left")
            listener.seen.append((message["epoch"], message["seq"], payload))
            if self.handlers_are_slow:
                self.time.sleep(self.random.choice([0, 0.1, 1.5]))
            if self.chance(0.02):
                raise RuntimeError("the handler fails")

        def on_gap(gap):
            listener.seen.append((gap["reason"], gap.get("from"), gap.get("to")))

        give_up_s = self.random.choice([1, 60, math.inf])
        listener.subscription = self.client.subscribe(topic, handler, on_gap=on_gap, give_up_s=give_up_s, **(listener.place or {}))
        self.listeners.append(listener)

        def wait():
            try:
                listener.subscription.wait()
            except SubscribeFailed as error:
                listener.is_ended = error.code in ENDED
                raise

        self.promise(f"subscription to {topic}", give_up_s, wait)

    def leave(self, listener):
        listener.is_left = True
        self.promise(f"unsubscribe of {listener.topic}", 60, listener.subscription.unsubscribe().wait)

    def publish(self):
        topic, id = self.random.choice(TOPICS), f"own{len(self.publishes)}"
        give_up_s, is_large = self.random.choice([0.5, 10, 60, math.inf]), self.chance(0.1)
        entry = {"topic": topic, "id": id, "is_large": is_large}
        payload = "x" * (self.server.max_frame_bytes + 1000) if is_large else id.ljust(40_000 if self.is_narrow and self.chance(0.1) else 0)
        self.publishes.append(entry)

        def wait():
            entry["answer"] = self.client.publish(topic, payload, id=id, give_up_s=give_up_s)

        self.promise(f"publish {id}", give_up_s, wait)

    def trouble(self):
        server = self.server
        name = self.random.choice(
            ["restart", "is_down", "hangs", "swallows_connect", "refuses", "trim", "expire", "cut", "frames", "mute", "renumber"]
        )
        if name in ("restart", "cut"):
            getattr(server, name)()
        elif name in ("trim", "renumber"):
            getattr(server, name)(self.random.choice(TOPICS))
        elif name in ("expire", "frames", "mute"):
            for session in list(server.sessions):
                getattr(self, name)(session)
        else:
            setattr(server, name, self.random.choice(["unavailable", "token_expired"]) if name == "refuses" else True)
            if name != "refuses" or self.chance(0.5):
                server.cut()
            self.time.later(self.random.uniform(0, 60), lambda: setattr(server, name, False))

    def expire(self, session):
        session.has_expired = True
        session.send(refusal("token_expired", graceMs=30000))
        self.time.later(30, lambda: session.has_expired and session.close())

    def frames(self, session):
        for frame in NONSENSE:
            session.send(frame)

    def mute(self, session):
        session.is_mute = True

    # The end

    def finish(self):
        server, self.is_stormy = self.server, False
        server.faults, server.is_down, server.swallows_connect, server.refuses = 0, False, False, None
        server.hangs = self.chance(0.5)
        self.time.run(STORM_S + 60)
        self.promise("last publish", 100, lambda: self.client.publish("a", "calm", id="calm", give_up_s=100))  # it notices a mute server
        self.time.run(STORM_S + CALM_S)
        connects = server.connects
        for topic in TOPICS:
            server.append(topic, f"last {topic}", "last")
        self.time.run(STORM_S + CALM_S + 60)
        self.check(server.connects == connects, "the connection is not at rest")
        self.check_promises()
        self.check_topics()
        for publish in self.publishes:
            self.check_publish(**publish)
        for listener in self.listeners:
            self.check_order(listener)
        self.check_close()

    def check_promises(self):
        for name, made, within_s, settled in self.promises:
            self.check(settled is not None, f"{name} never settles")
            is_late = settled is not None and settled > made + within_s + 0.001
            self.check(not is_late, f"{name} settles at {settled} s, made at {made}, not within {within_s}")

    def check_topics(self):
        server = self.server
        state, count = self.client.state, len(server.sessions)
        self.check(state == "live" and count == 1, f"{state} with {count} connections")
        wanted = set()
        for listener in self.listeners:
            told = any(at >= listener.made and topic == listener.topic and code in ENDED for at, topic, code in self.errors)
            if listener.is_left or listener.is_ended:
                continue
            wanted.add(listener.topic)
            if told:  # slow handlers may have delayed the report of an older listener's end until after this one was made
                continue
            last = [each for each in listener.seen if each[0].startswith("E")][-1:]
            self.check(last and last[0][2] == "last", f"{listener.topic} is dead in silence: {last}, made at {listener.made}")
        for session in server.sessions:
            self.check(set(session.cursors) <= wanted, f"{session.cursors} are subscribed to, and wanted are {wanted}")

    def check_publish(self, topic, id, is_large, answer=None):
        self.check(not (is_large and answer), f"{id} is too large, and answered")
        if answer:
            logs = [log for name, log in [*self.server.old_logs, *self.server.logs.items()] if name == topic]
            logs = [log for log in logs if log.epoch == answer["epoch"]]
            self.check(logs and logs[0].ids[id]["seq"] == answer["seq"], f"{id} was answered and is not there")

    def check_order(self, listener):
        """Once and in order; what is missing was told where it is missing."""
        place = listener.place or {"epoch": None, "since": None}
        epoch, seq, was_told = place["epoch"], place["since"], False
        for first, second, third in listener.seen:
            if first == "epoch_changed":
                was_told = True
            elif first == "history_gap":
                self.check(seq is None or was_told or second == seq + 1, f"{listener.topic}: a gap from {second} after {seq}")
                seq = third
            else:
                follows = epoch in (None, first) and seq is not None and second == seq + 1
                begins = (seq, second) == (0, 1)  # an epoch that nobody told of, of which nothing can be missing
                self.check(seq is None or follows or was_told or begins, f"{listener.topic}: {second} of {first} after {seq} of {epoch}")
                epoch, seq, was_told = first, second, False

    def check_close(self):
        self.time.start(self.client.close, "caller")
        self.time.run(self.time.time + 30)
        self.check(len(self.client.timers) == 0, f"{len(self.client.timers)} timers are left after close()")
        self.check(not self.time.running, f"running after close(): {self.time.running}")
        self.check(not self.time.errors, f"a thread ended with {self.time.errors}")
        self.check(self.states[-1:] == ["closed"], f"states: {self.states}")
