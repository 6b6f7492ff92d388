"""The sending side: links that carry as much as their clients read, and what every frame on them is held to."""

from collections import Counter, deque

import orjson

from tests.unit.realtime.fakes import frame_of

FRAME_BYTES = 700  # the most that one frame of these worlds has


class Link:
    """One connection: frames wait here until the client has read them, `rate` bytes a millisecond; 0 is one who does not read."""

    def __init__(self, client, rate):
        self.client, self.rate, self.is_open = client, rate, True
        self.queue, self.queued_bytes, self.progress, self.is_blocked = deque(), 0, 0, False
        self.highest, self.told = {}, {}  # by topic: what was sent of it, and how far a gap was told
        self.times = Counter()  # how often each (topic, epoch, seq) was sent since the client last subscribed

    def write(self, batch):
        self.client.world.wire.put(self, [frame_of(packet) for packet in batch.packets])


class Wire:
    """The hub's transport. It holds every frame to the promises that concern the sending side."""

    def __init__(self, world):
        self.world = world
        self.links = {}

    def listen(self, listener):
        """World.carry reports to the hub."""

    def link(self, connection_id):
        return self.links[connection_id]

    def send(self, connection_id, frame):
        self.put(self.links[connection_id], [orjson.loads(orjson.dumps(frame))])

    def put(self, link, frames):
        assert link.is_open, "nothing may be sent to who has gone"
        limit = self.world.options.send_buffer_bytes
        for frame in frames:
            self._check(link, frame)
            text = orjson.dumps(frame)
            link.queue.append(text)
            link.queued_bytes += len(text)
            if frame["type"] == "event":
                assert link.queued_bytes <= limit + 2 * protocol_slack(frame) or len(link.queue) == 1, f"{link.queued_bytes} bytes wait"
        if link.queued_bytes > limit // 2 and not link.is_blocked:
            link.is_blocked = True
            self.world.hub.blocked(link.client.connection_id, self.world.clock)

    def close(self, connection_id, reason):
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
        assert link.times[topic, epoch, event["seq"]] <= 1 + self.world.options.ack_max_retries, "more often than allowed"


def protocol_slack(frame):
    return sum(FRAME_BYTES for _ in frame.get("events", [frame]))
