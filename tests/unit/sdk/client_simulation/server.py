"""A server that keeps to the protocol and has bad days, and python-socketio's client in front of it. The twin of server.js."""

import itertools
import json
import math

from socketio.exceptions import BadNamespaceError, ConnectionError

TEMPORARY = ("rate_limited", "unavailable", "internal")
NONSENSE = [None, 7, "ack", {}, {"type": "ack"}, {"type": "error"}, {"type": "ack", "seq": "1", "epoch": 2}]


def refusal(code, **more):
    return {"type": "error", "code": code, "message": code, "retryable": code in TEMPORARY, **more}


class Log:
    def __init__(self, epoch):
        self.epoch, self.head, self.messages, self.ids = epoch, 0, {}, {}


class Server:
    """The logs of all topics, which sessions subscribe to. `faults` is how bad the day is, from 0 to 1."""

    def __init__(self, time, random):
        self.time, self.random = time, random
        self.logs, self.old_logs, self.sessions, self.epochs = {}, [], [], itertools.count(1)
        self.faults, self.latency_s, self.max_topics, self.max_frame_bytes = 0.0, 0.005, 5, 2000
        self.bytes_per_s, self.closes_at_once = math.inf, False
        self.is_down = self.hangs = self.swallows_connect = False
        self.refuses, self.connects = None, 0
        self.script = lambda frame: None  # the refusal that this frame gets
        self.heard = []

    def chance(self, part):
        return self.random.random() < part

    def log(self, topic):
        if topic not in self.logs:
            self.logs[topic] = Log(f"E{next(self.epochs)}")
        return self.logs[topic]

    def append(self, topic, id, payload):
        log = self.log(topic)
        if id in log.ids:
            return {**log.ids[id], "duplicate": True}
        log.head += 1
        log.ids[id] = {"topic": topic, "seq": log.head, "epoch": log.epoch}
        log.messages[log.head] = {"payload": payload, "id": id, "seq": log.head, "ts": 0}
        for session in self.sessions:
            session.pump(topic)
        return log.ids[id]

    def trim(self, topic):
        log = self.log(topic)
        log.messages = {seq: message for seq, message in log.messages.items() if seq > log.head - 3}

    def restart(self):
        self.old_logs += self.logs.items()
        self.logs.clear()
        self.cut()

    def renumber(self, topic):
        """The topic's numbering begins anew under a running connection, and nothing says so."""
        self.old_logs.append((topic, self.log(topic)))
        del self.logs[topic]
        for session in self.sessions:
            if topic in session.cursors:
                session.cursors[topic] = 0

    def cut(self):
        for session in list(self.sessions):
            session.close()


class Session:
    """One connection. What is sent on it keeps its order, whatever the latency, but answers to publishes may overtake one another."""

    def __init__(self, server, sio):
        self.server, self.sio, self.is_open = server, sio, True
        self.is_joined = self.has_expired = self.is_mute = False
        self.cursors, self.unsubscribed, self._arrivals = {}, [], {"in": 0.0, "out": 0.0}
        self._sent = {"in": 0.0, "out": 0.0}

    def later(self, way, act, is_ordered=True, frame=None):
        """A frame leaves when the one before has left, and takes the longer the larger it is."""
        time = self.server.time
        self._sent[way] = max(self._sent[way], time.time) + (50 + len(json.dumps(frame))) / self.server.bytes_per_s
        at = self._sent[way] + self.server.latency_s * self.server.random.uniform(0.5, 1.5)
        if is_ordered:
            at = self._arrivals[way] = max(self._arrivals[way], at)
        time.later(at - time.time, lambda: self.is_open and act())

    def close(self):
        if self.is_open:
            self.is_open = False
            if self in self.server.sessions:
                self.server.sessions.remove(self)
            self.sio.closed(self)

    def send(self, frame):
        self.later("in", lambda: self.sio.fire("message", frame), frame=frame)

    def pump(self, topic):
        log = self.server.log(topic)
        while topic in self.cursors and self.cursors[topic] < log.head:
            at = self.cursors[topic]
            first = min([seq for seq in log.messages if seq > at] or [log.head])
            if first > at + 1:
                self.send(refusal("history_gap", topic=topic, **{"from": at + 1, "to": first - 1}))
            self.cursors[topic] = first
            for _ in range(2 if self.server.chance(self.server.faults / 4) else 1):
                self.send({"type": "event", "topic": topic, "epoch": log.epoch, **log.messages[first]})

    def subscribe(self, frame, answer):
        topic, since, epoch = frame["topic"], frame.get("since"), frame.get("epoch")
        if topic == "secret":
            answer(refusal("forbidden", topic=topic))
            return
        if topic not in self.cursors and len(self.cursors) >= self.server.max_topics:
            answer(refusal("limit_exceeded", topic=topic))
            return
        log = self.server.log(topic)
        place = {"type": "ack", "ok": True, "topic": topic, "epoch": log.epoch}
        if since is None:
            answer({**place, "seq": self.cursors.setdefault(topic, log.head)})
        else:
            is_other = bool(epoch and epoch != log.epoch) or since > log.head
            self.cursors[topic] = seq = 0 if is_other else since
            reason = {"reason": "epoch_changed"} if is_other else {}
            answer({**place, "seq": seq, "head": log.head, "recovered": not is_other, **reason})
            if is_other:
                self.send(refusal("epoch_changed", topic=topic, epoch=log.epoch))
        self.pump(topic)

    def unsubscribe(self, topic, answer):
        self.unsubscribed.append((topic, self.server.time.time))
        was_there = self.cursors.pop(topic, None) is not None
        answer({"type": "ack", "ok": True, "topic": topic, "seq": 0, "epoch": "x"} if was_there else refusal("unknown_topic"))

    def handle(self, frame, answer):
        kind = frame["type"]
        if self.is_mute:
            return
        if self.has_expired and kind in ("subscribe", "publish"):
            answer(refusal("token_expired"))
        elif kind == "subscribe":
            self.subscribe(frame, answer)
        elif kind == "unsubscribe":
            self.unsubscribe(frame["topic"], answer)
        elif kind == "publish":
            answer({"type": "ack", "ok": True, **self.server.append(frame["topic"], frame["id"], frame["payload"])})
        elif kind == "auth":
            self.has_expired = frame["token"] == "expired"
            answer(refusal("token_expired") if self.has_expired else {"type": "ack", "ok": True})
        elif any(topic not in self.cursors for topic in frame["acks"]):
            self.send(refusal("unknown_topic"))

    def receive(self, frame, callback):
        self.server.heard.append(frame)
        if len(json.dumps(frame)) + 50 > self.server.max_frame_bytes:
            self.close()
            return

        def answer(given):
            if callback:
                self.later("in", lambda: callback(given), frame["type"] != "publish", given)

        scripted = self.server.script(frame)
        if scripted:
            answer(scripted)
        elif self.server.chance(self.server.faults):
            self.fail(frame, answer)
        else:
            self.handle(frame, answer)

    def fail(self, frame, answer):
        random = self.server.random
        fault = random.choice(["late", "twice", "never", "unheard", "refused", "refused", "refused", "nonsense", "closed"])
        if fault == "late":
            self.server.time.later(random.uniform(0, 9), lambda: self.is_open and self.handle(frame, answer))
        elif fault == "twice":
            self.handle(frame, lambda given: (answer(given), answer(given)))
        elif fault == "never":
            self.handle(frame, lambda given: None)
        elif fault == "refused":
            more = {"retryAfterMs": random.uniform(0, 3000)} if self.server.chance(0.5) else {}
            answer(refusal(random.choice(["rate_limited", "unavailable", "internal", "token_expired"]), **more))
        elif fault == "nonsense":
            answer(random.choice(NONSENSE))
        elif fault == "closed":
            self.close()

    def join(self, auth):
        server = self.server
        server.heard.append({"type": "connect", **auth})
        if server.swallows_connect or server.chance(server.faults / 4):
            return
        bad_day = server.random.choice(["unavailable", "token_expired"]) if server.chance(server.faults / 4) else None
        code = "token_expired" if auth["token"] == "expired" else server.refuses or bad_day
        if code:
            self.later("in", lambda: self.sio.refused(refusal(code)))
            return
        server.connects += 1
        server.sessions.append(self)
        self.later("in", lambda: self.sio.joined(self))
        if server.closes_at_once:
            self.later("in", self.close)
        if len(auth["resume"]) > server.max_topics:
            self.send(refusal("limit_exceeded"))
            return
        for topic, place in auth["resume"].items():
            scripted = server.script({"type": "resume", "topic": topic})
            if scripted:
                self.send({**scripted, "topic": topic})
            elif server.chance(server.faults / 3):
                self.send(refusal(server.random.choice(["unavailable", "token_expired", "rate_limited"]), topic=topic))
            elif not server.chance(server.faults / 3):
                self.subscribe({"topic": topic, **place}, self.send)


class Sio:
    """What RealtimeClient uses of python-socketio's client; `connect` blocks its (virtual) thread."""

    def __init__(self, server):
        self.server, self.connected, self.handlers, self.session = server, False, {}, None
        self.reconnection_delay, self.reconnection_delay_max, self.attempts = 0.25, 10.0, []

    def on(self, event, handler, namespace):
        self.handlers[event] = handler

    def fire(self, event, *values):
        if event in self.handlers:
            self.handlers[event](*values)

    def connect(self, url, namespaces, auth, transports, wait_timeout):
        server = self.server
        self.attempts.append(transports)
        server.time.sleep(4 * server.latency_s)
        if server.is_down or (server.hangs and transports == ["websocket"]):
            server.time.sleep(10.0 if server.hangs else 0)
            self.fire("connect_error", "Connection error")
            raise ConnectionError("Connection error")
        session = self.session = Session(server, self)
        given = auth()
        session.later("out", lambda: session.join(given), frame=given)
        self.outcome = server.time.event()
        if not self.outcome.wait(wait_timeout) or not session.is_joined:
            session.is_open = False
            if session in server.sessions:
                server.sessions.remove(session)
            raise ConnectionError("One or more namespaces failed to connect")
        self.connected = session.is_open

    def joined(self, session):
        session.is_joined = True
        self.fire("connect")
        self.outcome.set()

    def refused(self, data):
        self.fire("connect_error", {"message": data["message"], "data": data})
        self.outcome.set()

    def closed(self, session):
        if session is self.session:
            self.connected = False
            self.outcome.set()
            if session.is_joined:
                self.fire("disconnect", "transport error")

    def emit(self, event, frame, namespace, callback=None):
        session = self.session
        if session is None or not session.is_joined or not session.is_open:
            raise BadNamespaceError(namespace)
        copy = json.loads(json.dumps(frame))
        session.later("out", lambda: session.receive(copy, callback), frame=copy)

    def disconnect(self):
        self.connected = False
        if self.session and self.session.is_open:
            self.session.is_open = False
            if self.session in self.server.sessions:
                self.server.sessions.remove(self.session)
