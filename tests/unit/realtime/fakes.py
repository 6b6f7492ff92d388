"""A transport that keeps what it was told to send."""

from collections import defaultdict

import orjson


class MemoryTransport:
    """`sent[connection_id]` are the frames as a client would read them, `emitted` the (event, payload, room)."""

    def __init__(self):
        self.sent = defaultdict(list)
        self.emitted = []
        self.closed = []
        self.encoded = 0

    def send(self, connection_id, frame):
        self.send_many([connection_id], frame)

    def send_many(self, connection_ids, frame):
        self.encoded += 1
        for connection_id in connection_ids:
            self.sent[connection_id].append(orjson.loads(orjson.dumps(frame)))

    def emit(self, event, payload, room):
        self.emitted.append((event, payload, room))

    def queued_bytes(self, connection_id):
        return 0

    def progress(self, connection_id):
        return 0

    def notify_when_writable(self, connection_id):
        raise AssertionError("there is always room")

    def close(self, connection_id, reason):
        self.closed.append(connection_id)
