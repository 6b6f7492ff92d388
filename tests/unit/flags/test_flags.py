"""The snapshot, the writes and the announcements, over a store in memory that can be made to fail."""

import os

import pytest
from structlog.testing import capture_logs

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.flags import Flags
from app.flags.rules import Context
from app.flags.schemas import read_records, write_records
from app.flags.store.memory import MemoryFlagStore
from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.storage.local_copy import LocalCopy
from tests.apps import NOW, Clock

ANYBODY = Context()


class FailingFlagStore(MemoryFlagStore):
    """Raises `error` while it is set, and lets `meddle` change the store once between a read and the write after it."""

    error = None
    meddle = None
    asked = 0

    def _answer(self):
        self.asked += 1
        if self.error:
            raise self.error

    def list_all(self):
        self._answer()
        return super().list_all()

    def get(self, key):
        self._answer()
        return super().get(key)

    def create(self, flag):
        self._answer()
        super().create(flag)

    def replace(self, flag, expected_version):
        self._answer()
        if self.meddle:
            meddle, self.meddle = self.meddle, None
            meddle()
        super().replace(flag, expected_version)

    def put_by_others(self, *flags):
        self._flags.update({flag.key: flag for flag in flags})


class Scene:
    def __init__(self, *flags):
        self.store, self.clock, self.metrics, self.announced = FailingFlagStore(*flags), Clock(), Metrics(), []
        self.flags = Flags(self.store, self.clock, self.metrics, announce=self.announced.append, uptime=self.clock)

    def on(self, context=ANYBODY):
        return {flag.key: decision.on for flag, decision in self.flags.evaluate_all(context)}


@pytest.fixture
def scene():
    scene = Scene(Flag("a", True), Flag("b", True, {"role": ["admin"]}), Flag("off"))
    scene.flags.refresh()
    return scene


def refused(code, call, *args, **kwargs):
    with pytest.raises(ApiError) as error:
        call(*args, **kwargs)
    assert error.value.code == code
    return error.value


# --- evaluating


def test_evaluation_does_not_read_the_store(scene):
    asked = scene.store.asked
    assert scene.on() == {"a": True, "b": False}
    scene.flags.fingerprint_for(ANYBODY)
    scene.flags.check()
    assert scene.store.asked == asked


def test_a_decision_depends_on_the_context(scene):
    assert scene.on(Context("u", roles=("admin",))) == {"a": True, "b": True}


def test_disabled_flags_are_evaluated_on_request(scene):
    assert [flag.key for flag, _ in scene.flags.evaluate_all(ANYBODY, with_disabled=True)] == ["a", "b", "off"]


def test_the_first_evaluation_reads_the_store_when_no_refresh_has():
    assert Scene(Flag("a", True)).on() == {"a": True}


def test_evaluations_are_counted_by_result(scene):
    scene.on()
    rendered = scene.metrics.render().decode()
    assert 'flags_evaluated_total{result="on"} 1.0' in rendered
    assert 'flags_evaluated_total{result="off"} 1.0' in rendered


# --- the fingerprint of an answer


def test_the_fingerprint_stays_while_the_answer_stays(scene):
    before = scene.flags.fingerprint_for(ANYBODY)
    scene.clock.pass_ms(10_000)
    scene.flags.refresh()
    assert scene.flags.fingerprint_for(ANYBODY) == before


def test_the_fingerprint_is_the_same_in_every_worker(scene):
    assert Scene(Flag("off"), *scene.store.list_all()).flags.fingerprint_for(ANYBODY) == scene.flags.fingerprint_for(ANYBODY)


@pytest.mark.parametrize("other", [Context("u"), Context(session_id="s"), Context(roles=("admin",)), Context("u", "s"), Context("", "us")])
def test_another_context_has_another_fingerprint(scene, other):
    assert scene.flags.fingerprint_for(other) != scene.flags.fingerprint_for(ANYBODY)


def test_a_window_that_opens_or_closes_changes_the_fingerprint():
    scene = Scene(Flag("a", True, start_at=NOW + 10, end_at=NOW + 20))
    seen = []
    for _ in range(4):
        seen.append((scene.on()["a"], scene.flags.fingerprint_for(ANYBODY)))
        scene.clock.pass_ms(8)
    assert [on for on, _ in seen] == [False, False, True, False]
    assert seen[0] == seen[1]
    assert len({print_ for _, print_ in seen}) == 3


# --- the store goes away


def test_while_the_store_is_away_the_last_snapshot_serves_and_its_age_is_reported(scene):
    scene.store.error = StorageUnavailable("the disk is on fire")
    scene.clock.pass_ms(3000)
    scene.flags.refresh()
    assert scene.on() == {"a": True, "b": False}
    assert scene.flags.check() == {"state": "degraded", "flags": 3, "snapshotAgeMs": 3000, "error": "the disk is on fire"}
    assert "flags_snapshot_age_seconds 3.0" in scene.metrics.render().decode()


def test_when_the_store_is_back_the_next_refresh_reads_it(scene):
    scene.store.error = StorageUnavailable("away")
    scene.flags.refresh()
    scene.store.error = None
    scene.store.put_by_others(Flag("c", True))
    scene.flags.refresh()
    assert scene.flags.check() == {"state": "up", "flags": 4, "snapshotAgeMs": 0}
    assert "c" in scene.on()


def test_an_outage_of_the_store_is_logged_once_at_its_start_and_once_at_its_end(scene):
    with capture_logs() as lines:
        scene.store.error = StorageUnavailable("away")
        for _ in range(3):
            scene.flags.refresh()
        scene.store.error = None
        for _ in range(3):
            scene.flags.refresh()
    assert [line["event"] for line in lines] == ["flags_store_away", "flags_store_back"]


def test_any_exception_of_a_store_means_that_it_is_away_and_the_snapshot_serves(scene):
    scene.store.error = TypeError("unhashable type: 'dict'")
    with capture_logs() as lines:
        scene.flags.refresh()
        scene.flags.refresh()
    assert [line["event"] for line in lines] == ["flags_store_away"]
    assert scene.on() == {"a": True, "b": False}
    assert scene.flags.check()["error"] == "TypeError: unhashable type: 'dict'"


def test_without_a_snapshot_the_answer_is_unavailable_and_not_an_empty_list():
    scene = Scene(Flag("a", True))
    scene.store.error = StorageUnavailable("away")
    assert refused("unavailable", scene.on).retry_after_ms
    assert scene.flags.check() == {"state": "down", "flags": 0, "error": "away"}


def with_copy(scene, tmp_path):
    copy = LocalCopy(tmp_path / "copy.json", "db", write_records, read_records)
    scene.flags = Flags(scene.store, scene.clock, scene.metrics, scene.announced.append, copy=copy, uptime=scene.clock)
    return scene


def test_a_process_that_starts_while_the_store_is_away_serves_the_local_copy_and_reports_its_age(tmp_path):
    before = with_copy(Scene(Flag("a", True, {"percent": 100}, NOW - 5, NOW + 9000, "why", 3, NOW), Flag("b", True)), tmp_path)
    before.flags.refresh()
    before.flags.create({"key": "c"})
    before.flags.delete("b")
    os.utime(tmp_path / "copy.json", (NOW / 1000, NOW / 1000))
    scene = with_copy(Scene(Flag("new", True)), tmp_path)
    scene.store.error = StorageUnavailable("away")
    scene.clock.pass_ms(4000)
    scene.flags.refresh()
    assert scene.on() == {"a": True}
    assert scene.flags.get("a") == before.store.get("a")
    assert scene.flags.check() == {"state": "degraded", "flags": 2, "snapshotAgeMs": 4000, "error": "away"}
    assert scene.announced == []
    scene.store.error = None
    scene.flags.refresh()
    assert scene.on() == {"new": True}
    assert sorted(change["key"] for change in scene.announced) == ["a", "c", "new"]


def test_without_a_snapshot_only_the_first_request_waits_for_a_store_that_is_away():
    scene = Scene()
    scene.store.error = StorageUnavailable("away")
    for _ in range(3):
        refused("unavailable", scene.on)
    assert scene.store.asked == 1


def test_one_flag_is_read_from_the_snapshot_while_the_store_is_away(scene):
    scene.store.error = StorageUnavailable("away")
    assert scene.flags.get("off") == Flag("off")
    refused("unavailable", scene.flags.get, "unheard-of")


def test_a_write_while_the_store_is_away_is_refused_and_changes_nothing(scene):
    scene.store.error = StorageUnavailable("away")
    refused("unavailable", scene.flags.create, {"key": "c", "enabled": True})
    refused("unavailable", scene.flags.patch, "a", {"enabled": False})
    refused("unavailable", scene.flags.replace, "a", {"enabled": False})
    assert scene.on() == {"a": True, "b": False}
    assert scene.announced == []


# --- writing


def test_the_next_evaluation_sees_a_write(scene):
    scene.flags.create({"key": "c", "enabled": True})
    scene.flags.patch("a", {"enabled": False})
    scene.flags.replace("b", {"enabled": True})
    assert scene.on() == {"b": True, "c": True}
    scene.flags.delete("c")
    assert scene.on() == {"b": True}


def test_each_write_increases_version_and_updated_at_even_when_the_clock_stands_still(scene):
    versions = [scene.flags.patch("a", {"enabled": False}) for _ in range(3)]
    assert [flag.version for flag in versions] == [2, 3, 4]
    assert [flag.updated_at for flag in versions] == [NOW, NOW + 1, NOW + 2]


def test_a_patch_keeps_omitted_fields_and_a_replacement_resets_them(scene):
    scene.flags.patch("b", {"description": "why"})
    assert scene.store.get("b").rules == {"role": ["admin"]}
    replaced = scene.flags.replace("b", {"enabled": True})
    assert (replaced.rules, replaced.description) == ({}, None)


def test_a_patch_that_empties_the_window_is_refused(scene):
    scene.flags.patch("a", {"start_at": NOW})
    error = refused("bad_request", scene.flags.patch, "a", {"end_at": NOW})
    assert error.details[0]["path"] == "endAt"


def test_a_write_with_a_stale_fingerprint_is_refused_and_with_a_current_one_accepted(scene):
    seen = scene.store.get("a").fingerprint
    scene.flags.patch("a", {"enabled": False}, frozenset({seen}))
    refused("precondition_failed", scene.flags.patch, "a", {"enabled": True}, frozenset({seen}))
    refused("precondition_failed", scene.flags.replace, "a", {"enabled": True}, frozenset({seen}))
    refused("precondition_failed", scene.flags.delete, "a", frozenset({seen}))
    scene.flags.delete("a", frozenset({seen, scene.store.get("a").fingerprint}))


def test_a_change_between_read_and_write_refuses_a_patch_with_if_match(scene):
    seen = scene.store.get("a").fingerprint
    scene.store.meddle = lambda: scene.store.put_by_others(Flag("a", False, version=2))
    refused("precondition_failed", scene.flags.patch, "a", {"description": "mine"}, frozenset({seen}))


def test_a_change_between_read_and_write_is_kept_by_a_patch_without_if_match(scene):
    scene.store.meddle = lambda: scene.store.put_by_others(Flag("a", False, {"percent": 3}, version=2))
    patched = scene.flags.patch("a", {"description": "mine"})
    assert (patched.rules, patched.description, patched.version) == ({"percent": 3}, "mine", 3)


def test_a_manual_edit_that_keeps_the_version_makes_the_fingerprint_stale(scene):
    seen = scene.store.get("a").fingerprint
    scene.store.put_by_others(Flag("a", True, {"percent": 1}))
    refused("precondition_failed", scene.flags.patch, "a", {"enabled": False}, frozenset({seen}))


@pytest.mark.parametrize("write", ["patch", "replace"])
def test_a_missing_flag_cannot_be_changed_and_an_existing_key_cannot_be_created(scene, write):
    refused("not_found", getattr(scene.flags, write), "unheard-of", {})
    refused("not_found", scene.flags.delete, "unheard-of")
    refused("conflict", scene.flags.create, {"key": "a"})


# --- announcing


def test_every_write_is_announced(scene):
    scene.flags.create({"key": "c"})
    scene.flags.patch("c", {"enabled": True})
    scene.flags.delete("c")
    date = {"updatedAt": "2025-10-09T08:53:20.000Z"}
    assert scene.announced == [
        {"kind": "flag_changed", "key": "c", **date},
        {"kind": "flag_changed", "key": "c", "updatedAt": "2025-10-09T08:53:20.001Z"},
        {"kind": "flag_changed", "key": "c", "deleted": True, **date},
    ]


def test_an_announcement_that_fails_does_not_fail_the_write(scene):
    def explode(change):
        raise RuntimeError("nobody listens")

    scene.flags._announce = explode
    scene.flags.create({"key": "c", "enabled": True})
    assert scene.on()["c"]


def test_a_refresh_announces_the_changes_of_other_processes(scene):
    scene.store.put_by_others(Flag("a", False, version=2, updated_at=NOW - 5), Flag("new"))
    scene.store.delete("b", None)
    scene.flags.refresh()
    assert [(change["key"], change.get("deleted")) for change in scene.announced] == [("a", None), ("b", True), ("new", None)]
    assert scene.announced[0]["updatedAt"] == "2025-10-09T08:53:19.995Z"


def test_an_edit_that_keeps_updated_at_is_announced_with_the_time_of_the_refresh(scene):
    scene.store.put_by_others(Flag("a", False))
    scene.flags.refresh()
    assert scene.announced == [{"kind": "flag_changed", "key": "a", "updatedAt": "2025-10-09T08:53:20.000Z"}]


def test_the_first_snapshot_and_an_unchanged_one_announce_nothing(scene):
    scene.flags.refresh()
    scene.store.put_by_others(Flag("a", True, updated_at=NOW))  # a file that was only touched
    scene.flags.refresh()
    scene.flags.patch("a", {"enabled": False})
    scene.flags.refresh()
    assert len(scene.announced) == 1


def test_flags_that_were_unreadable_at_the_start_are_announced_once_they_are_read():
    scene = Scene(Flag("a", True))
    scene.store.error = StorageUnavailable("away")
    scene.flags.refresh()
    scene.store.error = None
    scene.flags.refresh()
    assert [change["key"] for change in scene.announced] == ["a"]
