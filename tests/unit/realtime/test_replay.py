"""What comes back from the archive while a subscription is replayed, and what does not is told."""

from app.metrics import Metrics
from app.realtime import protocol
from app.realtime.hub import Hub
from app.realtime.log import Message, NoNumbers
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.rules import Rules
from tests.apps import NOW
from tests.unit.realtime.fakes import MemoryTransport
from tests.unit.realtime.test_hub import ADMIN


class LaterArchive:
    """Answers when the test says so."""

    def __init__(self, *seqs):
        self.seqs, self.asked = seqs, []

    def keeps(self, topic, epoch, after):
        return True

    def fetch(self, topic, epoch, after, last, then):
        self.asked.append((after, last))
        found = None if self.seqs == (None,) else [Message(topic, epoch, seq, "m", NOW, b"1") for seq in self.seqs if after < seq <= last]
        self.answer = lambda: then(found, NOW)


class Numbers(NoNumbers):
    """As after a restart: the topic had eight messages."""

    def last(self, topic):
        return "e", 8


def restarted(archive, **manner):
    log = MemoryTopicLog(max_messages=3, max_bytes=100_000, max_topics=3, numbers=Numbers())
    hub = Hub(log, Metrics(), Rules(), archive=archive)
    log.listen(lambda message: hub.announce(message, NOW))
    transport = hub.transport = MemoryTransport()
    hub.connect("a", ADMIN)
    hub.handle("a", protocol.Subscribe("t", since=2, epoch="e", **manner), NOW, lambda answer: transport.send("a", answer))
    return hub, transport.sent["a"]


def resumed(archive, since=0):
    log = MemoryTopicLog(max_messages=3, max_bytes=100_000, max_topics=3)
    hub = Hub(log, Metrics(), Rules(), archive=archive)
    log.listen(lambda message: hub.announce(message, NOW))
    transport = hub.transport = MemoryTransport()
    for _ in range(8):
        hub.publish("t", b"1", NOW, None, None)
    hub.connect("a", ADMIN)
    hub.handle("a", protocol.Subscribe("t", since=since), NOW, lambda answer: transport.send("a", answer))
    hub.publish("t", b"1", NOW, None, None)
    return hub, transport.sent["a"]


def kinds(frames):
    return [(frame["type"], frame.get("seq") or (frame["from"], frame["to"])) for frame in frames[1:]]


def test_while_the_archive_is_asked_nothing_newer_overtakes():
    archive = LaterArchive(1, 2, 3, 4, 5, 6)
    _, frames = resumed(archive)
    assert frames[0]["recovered"] is True and len(frames) == 1 and archive.asked == [(0, 5)]
    archive.answer()
    assert archive.asked[1:] == [(5, 6)]
    archive.answer()
    assert kinds(frames) == [("event", seq) for seq in range(1, 10)]


def test_holes_in_the_archive_are_told_where_they_are():
    archive = LaterArchive(2, 3, 5)
    _, frames = resumed(archive)
    archive.answer()
    assert kinds(frames)[:5] == [("error", (1, 1)), ("event", 2), ("event", 3), ("error", (4, 4)), ("event", 5)]


def test_an_archive_that_fails_is_a_gap():
    archive = LaterArchive(None)
    _, frames = resumed(archive)
    archive.answer()
    archive.answer()  # asked once more for what the log has lost in the meantime
    assert kinds(frames) == [("error", (1, 5)), ("error", (6, 6)), ("event", 7), ("event", 8), ("event", 9)]


def test_an_answer_for_a_client_that_went_on_or_away_is_dropped():
    archive = LaterArchive(1, 2, 3, 4, 5)
    hub, frames = resumed(archive)
    hub.handle("a", protocol.Subscribe("t", since=9), NOW, frames.append)
    archive.answer()
    assert [frame["type"] for frame in frames] == ["ack", "ack"]
    hub.disconnect("a")
    archive.answer()
    assert len(frames) == 2


def test_where_a_part_of_the_archive_is_away_what_the_others_have_is_sent_and_the_rest_told():
    """As archive.py answers then: what is there may begin later than what was asked for."""
    archive = LaterArchive(4, 5)
    _, frames = resumed(archive)
    archive.answer()
    assert kinds(frames)[:3] == [("error", (1, 3)), ("event", 4), ("event", 5)]


def test_after_a_restart_all_that_was_missed_comes_from_the_archive_and_then_what_is_new():
    archive = LaterArchive(1, 2, 3, 4, 5, 6, 7, 8)
    hub, frames = restarted(archive)
    hub.publish("t", b"1", NOW, None, None)
    archive.answer()
    assert (frames[0]["recovered"], frames[0]["head"]) == (True, 8)
    assert kinds(frames) == [("event", seq) for seq in range(3, 10)]


def test_after_a_restart_who_wants_the_latest_gets_it_from_the_archive():
    archive = LaterArchive(1, 2, 3, 4, 5, 6, 7, 8)
    _, frames = restarted(archive, mode="latest")
    archive.answer()
    assert archive.asked == [(7, 8)]
    assert [(frame["seq"], frame["skipped"]) for frame in frames[1:]] == [(8, [3, 7])]


def test_after_a_restart_the_latest_that_nobody_has_is_a_gap():
    for archive in (LaterArchive(1, 2), LaterArchive(None)):
        _, frames = restarted(archive, mode="latest")
        archive.answer()
        assert kinds(frames) == [("error", (3, 8))]
