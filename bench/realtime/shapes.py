"""The table of what is measured. A new shape is a row."""

from typing import NamedTuple

PAYLOAD_BYTES = 120  # a delivery is some 250 bytes on the wire


class Shape(NamedTuple):
    """`kind` is "closed", "open" or "publish". Each subscriber has `topics_each` of `topics` topics. `load` is, in a closed loop or
    of publishes, how many messages of each topic are under way; in an open loop, the messages per second of all topics together."""

    title: str
    kind: str
    subscribers: int
    load: float
    topics: int = 1
    topics_each: int = 1


SHAPES = {
    "closed-100": Shape("100 subscribers, one topic, closed loop", "closed", 100, 32),
    "closed-500": Shape("500 subscribers, one topic, closed loop", "closed", 500, 32),
    "closed-2000": Shape("2000 subscribers, one topic, closed loop", "closed", 2000, 32),
    "closed-10000": Shape("10,000 subscribers, one topic, closed loop", "closed", 10_000, 32),
    "open-500": Shape("500 subscribers × 40/s, open loop", "open", 500, 40),
    "open-2000": Shape("2000 subscribers × 10/s, open loop", "open", 2000, 10),
    "topics-closed": Shape("500 subscribers over 100 topics, closed loop", "closed", 500, 2, topics=100),
    "topics-open": Shape("500 subscribers over 100 topics × 20/s, open loop", "open", 500, 2000, topics=100),
    "ten-topics-open": Shape("500 subscribers with 10 of 100 topics × 4/s, open loop", "open", 500, 400, topics=100, topics_each=10),
    "publish-1": Shape("publishing, one after the other", "publish", 0, 1),
    "publish-32": Shape("publishing, 32 under way", "publish", 0, 32),
}
QUICK = ("closed-100", "closed-500", "open-500", "topics-closed", "publish-32")
