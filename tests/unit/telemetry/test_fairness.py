"""The attacker: forty batches that are as expensive to read as half a megabyte can be, with a public write key, all at once.

The invariant: nobody else waits longer than 20 ms for them, whatever is in them.
"""

import gzip
from functools import partial

import gevent
import pytest

from app.errors import ApiError
from app.http.body import inflate
from app.metrics import Metrics
from app.realtime.archive.message_lines import encode as encode_messages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.storage.errors import StorageUnavailable
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery
from app.telemetry.spool.chunks import read_chunk
from app.telemetry.spool.event_lines import encode
from app.telemetry.spool.index import SpoolIndex
from app.telemetry.stats.bucket import Bucket
from app.telemetry.stats.reader import StatsReader
from app.telemetry.stats.rollups import Rollups
from tests.apps import NOW, Clock, make_app
from tests.event_loop import measured_loop

AT_ONCE = 40
LONGEST_S = 0.08  # of CPU; 20 ms on a quiet machine, more beside three other test processes; without turns it is hundreds
ATTEMPTS = 3  # a busy machine makes some of them longer; work that does not yield makes all of them too long
SIZE = 480_000


def in_props(values):
    return b'{"app":"web","events":[{"type":"page","name":"n","props":{"a":[%b1]}}]}' % values


def events(event, count):
    return b'{"app":"web","events":[%b]}' % b",".join([event] * count)


WHOLE_PROPS = b'{"type":"event","name":"n","props":{"a":[' + b"1," * 15_000 + b"1]}}"
ORDINARY = b'{"type":"event","name":"n","props":{"text":"%b","list":[1,2,3],"object":{"is":true}}}' % (b"t" * 350)
ATTACKS = {
    "half a surrogate before many arrays": in_props(b'"\\ud800",' + b"[]," * (SIZE // 3)),
    "many arrays": in_props(b"[]," * (SIZE // 3)),
    "as many arrays as are let in": in_props(b"[]," * 49_000),
    "as many objects, each in a list of its own": in_props(b"[{}]," * 24_000),
    "many numbers": in_props(b"1," * (SIZE // 2)),
    "half surrogates only": in_props(b'"' + b"\\ud800" * (SIZE // 6) + b'",'),
    "props that are full": events(WHOLE_PROPS, 15),
    "a thousand bad events": events(b'{"props":{"a":[1,2,3,4,5,6,7,8,9]}}', 1000),
    "two kilobytes of bad events": events(b"0", 1000),
    "a thousand good events": events(ORDINARY, 1000),
}


@pytest.fixture
def telemetry(tmp_path):
    return make_app(tmp_path).extensions["switchyard"].telemetry


def without_keeping_others_waiting(prepare):
    """What the work returns that `prepare()` gives, which is measured in at most ATTEMPTS: one of them has to be short enough."""
    longest_s = []
    for _ in range(ATTEMPTS):
        work = prepare()
        with measured_loop() as loop:
            result = work()
        longest_s.append(loop.longest_s)
        if loop.longest_s < LONGEST_S:
            break
    assert min(longest_s) < LONGEST_S
    return result


def outcomes(work):
    """Of AT_ONCE callers: the answers, and the codes of what was refused."""

    def one():
        try:
            return work()
        except ApiError as error:
            return error.code

    greenlets = [gevent.spawn(one) for _ in range(AT_ONCE)]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
def test_forty_expensive_batches_at_once_keep_nobody_waiting(telemetry, body):
    answers = without_keeping_others_waiting(lambda: partial(outcomes, lambda: telemetry.save(body)))
    assert len(answers) == AT_ONCE


def test_forty_small_bodies_that_inflate_to_large_ones_keep_nobody_waiting(telemetry):
    body = gzip.compress(events(ORDINARY, 1000))
    answers = without_keeping_others_waiting(lambda: partial(outcomes, lambda: telemetry.save(inflate(body, 512_000))))
    assert [answer["saved"] for answer in answers] == [1000] * AT_ONCE


@pytest.mark.parametrize("values", [b"[]," * 50_001, b"[{}]," * 30_000], ids=["arrays", "objects in arrays"])
def test_more_arrays_and_objects_than_anybody_needs_are_refused_with_the_bound(telemetry, values):
    with pytest.raises(ApiError) as refused:
        telemetry.save(in_props(values))
    assert refused.value.code == "payload_too_large"
    assert "50000 arrays and objects" in refused.value.message


REALISTIC = {
    "a thousand ordinary events": events(ORDINARY, 1000),
    "brackets in strings": events(b'{"type":"error","name":"n","props":{"stack":"%b"}}' % (b'at [native] {code} \\"[\\" ' * 1200), 15),
    "traces of a mouse": events(b'{"type":"event","name":"n","props":{"a":[%b[0,0,0]]}}' % (b"[812,334,16]," * 2_400), 15),
    "resources": events(b'{"type":"perf","name":"n","props":{"a":[%b{}]}}' % (b'{"name":"/static/app.js","duration":12.5},' * 750), 15),
}


@pytest.mark.parametrize("body", REALISTIC.values(), ids=REALISTIC)
def test_realistic_batches_of_half_a_megabyte_pass_the_bound(telemetry, body):
    assert 380_000 < len(body) < 512_000
    answer = telemetry.save(body)
    assert "rejected" not in answer
    assert answer["saved"] >= 15


# --- work that goes on by itself


def stored(number, props=None):
    return StoredEvent(f"{number:032x}", "web", "event", f"n{number % 50}", props or {"a": 1, "b": "text"}, NOW + number, NOW)


def test_a_scan_of_many_lines_keeps_nobody_waiting(tmp_path):
    lines = encode([stored(number) for number in range(60_000)])
    for number in range(2):
        (tmp_path / f"events-{NOW}-1-00000{number}aaaaaaaa.jsonl").write_bytes(lines)
    query = EventQuery({"name": "there is none"})
    page = without_keeping_others_waiting(lambda: lambda: gevent.spawn(SpoolIndex(tmp_path).find, query).get())
    assert page.events == []


def test_a_chunk_of_long_lines_on_its_way_to_mongodb_keeps_nobody_waiting(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode([stored(number, {"a": [{"b": 1}] * 3000}) for number in range(100)]))
    with open(path, "rb") as file:
        chunk = without_keeping_others_waiting(lambda: gevent.spawn(read_chunk, file, 0, is_complete=True, max_lines=500).get)
    assert 1 < len(chunk.documents) < 100


def test_a_replay_from_files_keeps_nobody_waiting(tmp_path):
    lines = b"".join(encode_messages(Message("a:b", "e", seq, f"m{seq}", NOW, b'{"text":"some"}')) for seq in range(1, 30_001))
    for number in range(3):
        (tmp_path / f"messages-{NOW}-1-00000{number}aaaaaaaa.jsonl").write_bytes(lines)

    def prepare():
        spool = MessageSpool(tmp_path, 1_000_000, Clock())
        return lambda: gevent.spawn(spool.find, "another", "e", 0).get()

    assert without_keeping_others_waiting(prepare) == {}


class NoStore:
    def apply(self, delta):
        raise StorageUnavailable("away")


@pytest.mark.parametrize("count", ["fold", "flush"])
def test_counting_a_long_queue_keeps_nobody_waiting(count):
    events = [stored(number) for number in range(1000)]

    def prepare():
        rollups = Rollups(NoStore(), Clock(), Metrics(), flush_every_s=10)
        for _ in range(150):
            rollups.note(events)
        return lambda: gevent.spawn(getattr(rollups, count)).get()

    without_keeping_others_waiting(prepare)


class ManyBuckets:
    def __init__(self):
        self._buckets = [Bucket("web", "", NOW, {"event": {f"n{name}": 1 for name in range(300)}}, {}, {}) for _ in range(1500)]

    def read(self, *_):
        return self._buckets


def test_an_answer_from_many_buckets_keeps_nobody_waiting():
    stats = StatsReader(ManyBuckets(), Clock())
    without_keeping_others_waiting(lambda: lambda: gevent.spawn(stats.answer, {"app": "web", "top": 10}).get())
