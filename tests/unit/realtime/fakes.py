"""A transport that keeps what it was told to send."""

from collections import defaultdict

import orjson


def frame_of(packet):
    """The frame in a Socket.IO packet, as a client would read it."""
    head, body = packet.split(",", 1)
    event, frame = orjson.loads(body)
    assert (head, event) == ("2/realtime", "message")
    return frame


class MemoryLink:
    """`queued_bytes`, `progress` and `is_blocked` are what a test sets."""

    def __init__(self, transport, connection_id):
        self.transport, self.connection_id = transport, connection_id
        self.queued_bytes, self.progress, self.is_blocked = 0, 0, False

    def write(self, batch):
        self.transport.batches[id(batch)] = batch
        for packet in batch.packets:
            self.transport.sent[self.connection_id].append(frame_of(packet))


class MemoryTransport:
    """`sent[connection_id]` are the frames as a client would read them, `emitted` the (event, payload, room); `batches` were encoded."""

    def __init__(self):
        self.sent = defaultdict(list)
        self.links = {}
        self.emitted = []
        self.closed = []
        self.batches = {}
        self.listener = None

    def listen(self, listener):
        self.listener = listener

    def link(self, connection_id):
        link = self.links[connection_id] = MemoryLink(self, connection_id)
        return link

    def send(self, connection_id, frame):
        self.sent[connection_id].append(orjson.loads(orjson.dumps(frame)))

    def emit(self, event, payload, room):
        self.emitted.append((event, payload, room))

    def close(self, connection_id, reason):
        self.closed.append(connection_id)
