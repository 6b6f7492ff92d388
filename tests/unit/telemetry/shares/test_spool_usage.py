"""What one app may take of the spool: most of it while it is alone, never what another one is sure of, however names are invented."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.telemetry.batch import read_batch
from app.telemetry.shares.spool_share import MAX_APPS, OTHER, SpoolShare
from app.telemetry.shares.spool_usage import APPS_A_SEGMENT, PREFIX, SegmentUsage, SpoolUsage
from app.telemetry.sinks import SinkShareFull
from app.telemetry.sinks.spool import SpoolSink
from tests.apps import NOW

MAX = 1_000_000
RULE = SpoolShare(MAX, 0.8, MAX_APPS + 1)
FLOOR = int(0.2 * MAX / (MAX_APPS + 1))


def fill(rule, parties):
    """Each takes in turn all that it may."""
    stored = {}
    for party in parties:
        stored[party] = max(stored.get(party, 0), rule.limit_of(party, stored))
    return stored


def test_an_app_alone_can_use_most_of_the_spool_and_the_next_still_finds_room():
    stored = fill(RULE, ["first", "second", "third"])
    assert 0.64 * MAX < stored["first"] < 0.66 * MAX
    assert stored["second"] > 0.13 * MAX and stored["third"] > 0.03 * MAX


def test_every_party_has_its_floor_whatever_the_others_took_before_it():
    stored = fill(RULE, [f"n{number}" for number in range(MAX_APPS + 1)])
    assert all(size >= FLOOR - 1 for size in stored.values())
    assert sum(stored.values()) <= MAX


@given(st.lists(st.tuples(st.integers(0, MAX_APPS), st.integers(1, MAX)), max_size=60), st.floats(0.1, 0.99))
def test_the_limits_never_add_up_to_more_than_the_spool_and_no_floor_is_lost(wishes, share):
    rule, stored = SpoolShare(MAX, share, MAX_APPS + 1), {}
    for number, size in wishes:
        party = str(number)
        stored[party] = max(stored.get(party, 0), min(stored.get(party, 0) + size, rule.limit_of(party, stored)))
    assert sum(stored.values()) <= MAX
    floor = int((1 - share) * MAX / (MAX_APPS + 1))
    assert all(rule.limit_of(str(number), stored) >= floor for number in range(MAX_APPS + 1))


# The account of what lies in the folder.


@pytest.fixture
def make(tmp_path):
    """A process's own sink on the one folder; its account is looked after once."""

    def make(max_bytes=200_000, share=0.8, **changes):
        limits = {"max_bytes": max_bytes, "segment_bytes": 20_000, "known_ids": 0, "ttl_days": 0, "app_share": share}
        sink = SpoolSink(tmp_path / "spool", metrics=Metrics(), **{**limits, **changes})
        sink.open()
        sink.refresh_usage()
        return sink

    return make


def events(app="web", count=10, size=200):
    return read_batch({"app": app, "events": [{"type": "page", "name": "x" * size}] * count}, NOW, 1000).events


def fill_up(sink, app="web", **options):
    """Until it is refused; how much went in, and what was said."""
    count = 0
    while True:
        try:
            sink.write(events(app, **options))
            count += 1
        except StorageUnavailable as error:
            return count, error


def stored(sink):
    sink._usage._next_look = 0
    sink.refresh_usage()
    return sink._usage._stored


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.glob("events-*.jsonl"))


def test_an_app_that_used_up_its_share_is_told_so_and_another_one_still_stores(make):
    sink = make()
    count, error = fill_up(sink)
    assert isinstance(error, SinkShareFull) and error.full.keys() == {"web"}
    assert "The application web has used up the share of the spool" in str(error) and "SPOOL_APP_SHARE" in str(error)
    assert 0.55 * 200_000 < bytes_of(sink.folder) <= 0.66 * 200_000 and count > 10
    assert sink.write(events("shop")).storage == "spool"
    assert (sink.check()["state"], sink.check()["appsAtTheirShare"]) == ("degraded", ["web"])


def test_the_spool_is_down_while_each_app_in_it_has_used_up_its_share_and_says_so_before(make):
    sink, states = make(), []
    for _ in range(200):
        states.append(sink.check()["state"])
        try:
            sink.write(events(count=2))
        except SinkShareFull:
            break
    assert states[0] == "up" and states[-1] == "degraded"
    assert (sink.check()["state"], "SPOOL_APP_SHARE" in sink.check()["error"]) == ("down", True)
    sink.write(events("shop", count=1))
    assert sink.check()["state"] == "degraded"


def test_of_a_batch_that_mixes_apps_nothing_is_written_and_the_full_ones_are_named(make):
    sink = make()
    fill_up(sink)
    before = bytes_of(sink.folder)
    with pytest.raises(SinkShareFull) as refused:
        sink.write([*events("web"), *events("shop")])
    assert (refused.value.full.keys(), bytes_of(sink.folder)) == ({"web"}, before)
    assert sink._usage._reserved == {}


def test_invented_apps_share_one_part_and_an_app_that_was_there_keeps_its_own(make):
    sink = make()
    sink.write(events("honest", count=1))
    for number in range(40):
        fill_up(sink, f"invented-{number}", size=50)
    for _ in range(3):
        sink.write(events("honest", count=1, size=10))
    assert len(sink._usage._stored) <= MAX_APPS + 1
    assert bytes_of(sink.folder) < 200_000


def test_an_app_that_a_write_key_names_has_its_part_although_invented_ones_came_first(make):
    sink = make(named_apps={"shop"})
    for number in range(40):
        fill_up(sink, f"invented-{number}", size=50)
    assert sink.write(events("shop", count=2)).storage == "spool"
    with pytest.raises(SinkShareFull, match="others beyond the first 16"):
        sink.write(events("too-late", size=50))


def test_a_share_of_one_leaves_only_the_limit_of_the_whole(make):
    _, error = fill_up(make(share=1.0))
    assert not isinstance(error, SinkShareFull) and "SPOOL_MAX_BYTES" in str(error)


def test_a_write_that_failed_is_not_counted(make, monkeypatch):
    sink = make()
    monkeypatch.setattr(sink._writer, "append", lambda lines: (_ for _ in ()).throw(OSError("disk")))
    for _ in range(100):
        with pytest.raises(OSError, match="disk"):
            sink.write(events())
    assert sum(sink._usage._stored.values()) == 0 == sum(sink._usage._reserved.values())


def test_the_account_is_exact_by_app(make):
    sink = make()
    sink.write([*events("web", 3), *events("shop", 2)])
    sink.write(events("web", 5))
    lines = b"".join(path.read_bytes() for path in sink.folder.glob("events-*.jsonl")).splitlines(keepends=True)
    sizes = {app: sum(len(line) for line in lines if json.loads(line)["app"] == app) for app in ("web", "shop")}
    assert stored(sink) == sizes


def test_another_process_knows_it_without_reading_the_segments(make, monkeypatch):
    first = make()
    first.write(events("web", 20))
    stored(first)
    monkeypatch.setattr("app.telemetry.shares.spool_usage.whole_lines", lambda *_: pytest.fail("a segment was read"))
    assert make()._usage._stored == first._usage._stored == {"web": bytes_of(first.folder)}


def test_two_processes_hold_one_limit_together(make):
    first, second = make(), make()
    total = 0
    for _ in range(200):
        for sink in (first, second):
            stored(sink)
            try:
                sink.write(events())
                total += 1
            except SinkShareFull:
                pass
    assert total > 10 and bytes_of(first.folder) <= 0.66 * 200_000 + len(events()) * 400


@pytest.mark.parametrize("note", ["kept", "gone", "half", "of a larger file", "no JSON", "wrong sums"])
def test_what_a_killed_process_left_is_read_once_and_noted(make, note, monkeypatch):
    killed = make()
    killed.write(events("web", 20))
    killed.refresh_usage()
    killed.write(events("shop", 4))
    if note == "kept":
        stored(killed)
    killed._writer.close()  # as the kernel would
    (path,) = killed.folder.glob("events-*.jsonl")
    file = path.with_name(PREFIX + path.name)
    texts = {"half": '{"size":5,"ap', "of a larger file": json.dumps({"size": 10**9, "apps": {"web": 10**9}}), "no JSON": "\0",
             "wrong sums": json.dumps({"size": 7, "apps": {"web": 10**8}})}  # fmt: skip
    if note == "gone":
        file.unlink(missing_ok=True)
    elif note in texts:
        file.write_text(texts[note])
    lines = path.read_bytes().splitlines(keepends=True)
    expected = {app: sum(len(line) for line in lines if json.loads(line)["app"] == app) for app in ("web", "shop")}
    assert make()._usage._stored == expected
    monkeypatch.setattr("app.telemetry.shares.spool_usage.whole_lines", lambda *_: pytest.fail("it was read again"))
    assert make()._usage._stored == expected


def test_before_a_segment_was_read_it_counts_under_other(make, monkeypatch):
    monkeypatch.setattr("app.telemetry.sinks.spool.REMEMBERED_BYTES", 100)
    old = make()
    old.write(events("web", 20))
    old._writer.close()
    for file in old.folder.glob(f"{PREFIX}*"):
        file.unlink()
    sink = SpoolSink(old.folder, max_bytes=200_000, segment_bytes=20_000, known_ids=0, ttl_days=0, metrics=Metrics(), app_share=0.8)
    sink.open()
    assert sink._usage._stored == {OTHER: bytes_of(old.folder)}
    sink.refresh_usage()
    assert sink._usage._stored == {"web": bytes_of(old.folder)}


def test_a_torn_last_line_and_lines_that_are_no_events_count_under_other(make):
    old = make()
    old.write(events("web", 1))
    old._writer.close()
    (path,) = old.folder.glob("events-*.jsonl")
    with open(path, "ab") as file:
        file.write(b'{"no": "event"}\n{"app":"web","ty')
    (old.folder / (PREFIX + path.name)).unlink(missing_ok=True)
    assert make()._usage._stored == {"web": os.path.getsize(path) - 32, OTHER: 32}


def test_room_comes_back_when_a_segment_goes_and_its_note_goes_with_it(make):
    sink = make()
    fill_up(sink)
    stored(sink)
    for path in sorted(sink.folder.glob("events-*.jsonl"))[:3]:
        path.unlink()  # by a hand
    assert stored(sink)["web"] == bytes_of(sink.folder)
    assert sink.write(events()).storage == "spool"
    sink.close()
    for path in sink.folder.glob("events-*.jsonl"):
        sink.drop(path)
    assert list(sink.folder.glob(f"{PREFIX}*")) == [] and stored(sink) == {}


def test_the_note_of_one_segment_is_bounded():
    noted = SegmentUsage(0, {})
    for number in range(1000):
        noted.add(f"n{number}", 10)
    assert len(noted.apps) == APPS_A_SEGMENT + 1 and sum(noted.apps.values()) == noted.size == 10_000


def test_where_nothing_can_be_noted_the_sink_still_writes(make):
    sink = make()
    sink.write(events())
    (path,) = sink.folder.glob("events-*.jsonl")
    (sink.folder / (PREFIX + path.name)).mkdir()
    sink.write(events())
    assert stored(sink) == {"web": bytes_of(sink.folder)}


def test_an_account_of_no_folder_is_empty(tmp_path):
    account = SpoolUsage(tmp_path / "none", "events", max_bytes=MAX, share=0.5)
    account.look()
    assert account._stored == {}
