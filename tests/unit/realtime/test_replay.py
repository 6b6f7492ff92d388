"""What comes back from the archive while a subscription is replayed, and what does not is told."""

from app.metrics import Metrics
from app.realtime import protocol
from app.realtime.archive import Found
from app.realtime.hub import Hub
from app.realtime.log import Message, NoSequenceStore
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.options import Options
from tests.apps import NOW
from tests.unit.realtime.fakes import MemoryTransport
from tests.unit.realtime.test_hub import ADMIN


class LaterArchive:
    """Answers when the test says so; `None` among its numbers stands for a part that is away."""

    def __init__(self, *seqs):
        self.seqs, self.is_whole, self.asked, self.checked = set(seqs) - {None}, None not in seqs, [], []

    def confirm(self):
        pass

    def covers(self, topic, epoch, after):
        return True

    def check_complete(self, topic, epoch, after, last, then):
        self.checked.append((after, last))
        self.say = lambda: then(self.seqs >= set(range(after + 1, last + 1)), NOW)

    def fetch(self, topic, epoch, after, last, then):
        self.asked.append((after, last))
        found = [Message(topic, epoch, seq, "m", NOW, b"1") for seq in sorted(self.seqs) if after < seq <= last]
        self.answer = lambda: then(Found(found, self.is_whole), NOW)


class SequenceStore(NoSequenceStore):
    """As after a restart: the topic had eight messages."""

    def position(self, topic):
        return "e", 8


def restarted(archive, **manner):
    log = MemoryTopicLog(max_messages=3, max_bytes=100_000, max_topics=3, sequences=SequenceStore())
    hub = Hub(log, Metrics(), Options(), archive=archive)
    log.listen(lambda message: hub.announce(message, NOW))
    transport = hub.transport = MemoryTransport()
    hub.connect("a", ADMIN)
    hub.handle("a", protocol.Subscribe("t", since=2, epoch="e", **manner), NOW, lambda answer: transport.send("a", answer))
    archive.say()
    return hub, transport.sent["a"]


def asking(archive, since=0, metrics=None):
    """The archive has not said yet whether it has all."""
    log = MemoryTopicLog(max_messages=3, max_bytes=100_000, max_topics=3)
    hub = Hub(log, metrics or Metrics(), Options(), archive=archive)
    log.listen(lambda message: hub.announce(message, NOW))
    transport = hub.transport = MemoryTransport()
    for _ in range(8):
        hub.publish("t", b"1", NOW, None, None)
    hub.connect("a", ADMIN)
    hub.handle("a", protocol.Subscribe("t", since=since), NOW, lambda answer: transport.send("a", answer))
    hub.publish("t", b"1", NOW, None, None)
    return hub, transport.sent["a"]


def resumed(archive):
    hub, frames = asking(archive)
    archive.say()
    return hub, frames


def kinds(frames):
    return [(frame["type"], frame.get("seq") or (frame["from"], frame["to"])) for frame in frames[1:]]


def test_while_the_archive_is_asked_nothing_newer_overtakes():
    archive = LaterArchive(1, 2, 3, 4, 5, 6)
    _, frames = resumed(archive)
    assert frames[0]["recovered"] is True and len(frames) == 1 and archive.asked == [(0, 6)]
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
    assert kinds(frames) == [("error", (1, 6)), ("event", 7), ("event", 8), ("event", 9)]


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
    archive = LaterArchive(None, 4, 5)
    _, frames = resumed(archive)
    archive.answer()
    assert kinds(frames)[:3] == [("error", (1, 3)), ("event", 4), ("event", 5)]


def test_a_gap_says_whether_it_is_worth_asking_again():
    for seqs, is_worth_it, sentence in (((2,), False, "no longer kept"), ((None, 2), True, "cannot be read right now")):
        archive = LaterArchive(*seqs)
        _, frames = resumed(archive)
        archive.answer()
        gaps = [frame for frame in frames if frame["type"] == "error"]
        assert gaps and all(gap["retryable"] is is_worth_it and sentence in gap["message"] for gap in gaps)


def test_recovered_is_answered_when_the_archive_knows_and_true_only_where_it_has_all():
    everything, metrics = range(1, 7), Metrics()
    for seqs, is_whole in ((everything, True), ((1, 2, 3, 5, 6), False), ((None, *everything[3:]), False)):
        archive = LaterArchive(*seqs)
        _, frames = asking(archive, metrics=metrics)
        assert (frames, archive.checked, archive.asked) == ([], [(0, 5)], [])
        archive.say()
        (answer,) = frames
        assert (answer["recovered"], answer.get("reason")) == ((True, None) if is_whole else (False, "history_gap"))
        assert (answer["seq"], answer["head"]) == (0, 8)
    counted = {label: metrics.realtime_replays_total.labels(label)._value.get() for label in ("yes", "history_gap")}
    assert counted == {"yes": 1, "history_gap": 2}


def test_who_asks_for_another_place_before_the_archive_knows_goes_on_from_there():
    archive = LaterArchive(*range(1, 7))
    hub, frames = asking(archive)
    say = archive.say
    hub.handle("a", protocol.Subscribe("t", id="2", since=8), NOW, frames.append)
    assert [(frame["type"], frame["seq"]) for frame in frames] == [("ack", 8), ("event", 9)]
    say()
    assert (frames[2]["type"], frames[2]["seq"], "recovered" in frames[2], archive.asked) == ("ack", 9, False, [])


def test_who_leaves_before_the_archive_knows_is_not_answered():
    archive = LaterArchive(*range(1, 7))
    hub, frames = asking(archive)
    hub.disconnect("a")
    archive.say()
    assert frames == []


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
    assert archive.checked == archive.asked == [(7, 8)]
    assert [(frame["seq"], frame["skipped"]) for frame in frames[1:]] == [(8, [3, 7])]


def test_after_a_restart_the_latest_that_nobody_has_is_a_gap():
    for archive in (LaterArchive(1, 2), LaterArchive(None)):
        _, frames = restarted(archive, mode="latest")
        archive.answer()
        assert kinds(frames) == [("error", (3, 8))]
