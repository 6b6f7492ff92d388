"""Every application's configuration: overrides over settings, and what holds while the store is away."""

import pytest

from app.errors import ApiError
from app.storage.errors import StorageUnavailable
from app.storage.local_copy import LocalCopy
from app.telemetry.config.configs import Configs
from app.telemetry.config.schemas import dump_apps, load_apps
from app.telemetry.config.store.memory import MemoryConfigStore
from tests.apps import make_settings


class AbsentConfigStore(MemoryConfigStore):
    is_away = False
    reads = 0

    def read_all(self):
        self.reads += 1
        if self.is_away:
            raise StorageUnavailable("away")
        return super().read_all()


@pytest.fixture
def store():
    return AbsentConfigStore()


@pytest.fixture
def configs(store, tmp_path):
    return Configs(store, make_settings(tmp_path, telemetry_sample_rate=0.5, telemetry_max_batch=50, telemetry_max_events=80))


def test_an_application_without_overrides_has_the_settings_values(configs):
    usual = {"sample_rate": 0.5, "max_batch": 50, "flush_interval_ms": 10_000, "allow": [], "deny": []}
    assert configs.for_app(None) == configs.for_app("web") == usual


def test_an_override_changes_what_it_names_for_its_application_alone(configs):
    configs.put("web", {"sample_rate": 1.0, "deny": ["x"]})
    assert configs.for_app("web") == {**configs.for_app("shop"), "sample_rate": 1.0, "deny": ["x"]}
    assert configs.for_app("shop")["sample_rate"] == 0.5


def test_putting_nothing_is_removing(configs, store):
    configs.put("web", {"max_batch": 5})
    configs.put("web", {})
    assert (store.read_all(), configs.overrides_of("web")) == ({}, {})
    configs.put("never", {})
    with pytest.raises(ApiError) as refused:
        configs.remove("web")
    assert refused.value.code == "not_found"


def test_a_batch_larger_than_is_taken_is_refused_and_one_that_became_so_is_lowered(configs, store):
    with pytest.raises(ApiError) as refused:
        configs.put("web", {"max_batch": 81})
    assert refused.value.details == [{"path": "maxBatch", "message": "Must be at most 80: TELEMETRY_MAX_EVENTS."}]
    store.put("web", {"max_batch": 500})
    configs.refresh()
    assert configs.for_app("web")["max_batch"] == 80


def test_there_are_no_gates_while_everything_is_taken(configs):
    configs.put("web", {"sample_rate": 0.1, "max_batch": 5, "allow": [], "deny": []})
    assert configs.event_filter is None
    configs.put("web", {"deny": ["x"]})
    assert configs.event_filter is not None
    configs.remove("web")
    assert configs.event_filter is None


def test_what_another_worker_wrote_holds_after_a_refresh(configs, store):
    configs.refresh()
    store.put("web", {"sample_rate": 0.0})
    assert configs.for_app("web")["sample_rate"] == 0.5
    configs.refresh()
    assert configs.for_app("web")["sample_rate"] == 0.0
    assert configs.event_filter is not None


def test_reading_asks_the_store_at_most_once(configs, store):
    for _ in range(5):
        configs.for_app("web")
    assert store.reads == 1


def test_while_the_store_is_away_the_last_snapshot_holds_and_says_so(configs, store):
    configs.put("web", {"deny": ["x"]})
    store.is_away = True
    configs.refresh()
    assert configs.for_app("web")["deny"] == ["x"] and configs.event_filter is not None
    assert configs.check() == {"state": "degraded", "apps": 1, "error": "away"}
    with pytest.raises(StorageUnavailable):
        configs.put("web", {})
    store.is_away = False
    configs.refresh()
    assert configs.check() == {"state": "up", "apps": 1}


def test_whatever_a_store_raises_it_is_away_and_the_last_snapshot_holds(configs, store, monkeypatch):
    configs.put("web", {"deny": ["x"]})
    monkeypatch.setattr(store, "read_all", lambda: {}[{}])
    configs.refresh()
    assert configs.for_app("web")["deny"] == ["x"]
    assert configs.check()["error"] == "TypeError: unhashable type: 'dict'"


def test_a_store_that_was_never_there_leaves_the_settings_values(configs, store):
    store.is_away = True
    assert configs.for_app("web")["sample_rate"] == 0.5
    assert store.reads == 1


def with_copy(store, tmp_path):
    copy = LocalCopy(tmp_path / "copy.json", "db", dump_apps, load_apps)
    return Configs(store, make_settings(tmp_path), copy=copy)


def test_a_store_that_is_away_from_the_start_leaves_what_another_process_knew_until_it_answers(store, tmp_path):
    with_copy(store, tmp_path).put("web", {"deny": ["x"]})
    store.is_away = True
    configs = with_copy(store, tmp_path)
    configs.refresh()
    assert configs.for_app("web")["deny"] == ["x"] and configs.event_filter is not None
    report = configs.check()
    assert report.pop("copyAsOf").endswith("Z") and report == {"state": "degraded", "apps": 1, "error": "away"}
    store.is_away = False
    store.delete("web")
    configs.refresh()
    assert configs.event_filter is None and configs.check() == {"state": "up", "apps": 0}


def test_what_is_removed_and_what_a_refresh_finds_is_in_the_copy(store, tmp_path):
    configs = with_copy(store, tmp_path)
    configs.put("web", {"deny": ["x"]})
    configs.refresh()
    store.put("shop", {"deny": ["y"]})
    configs.refresh()
    configs.remove("web")
    store.is_away = True
    later = with_copy(store, tmp_path)
    later.refresh()
    assert (later.overrides_of("web"), later.overrides_of("shop")) == ({}, {"deny": ["y"]})


def test_a_copy_with_what_no_store_would_keep_is_passed_over(store, tmp_path):
    (tmp_path / "copy.json").write_text('{"of": "db", "content": {"web": {"deny": "x"}}}')
    store.is_away = True
    configs = with_copy(store, tmp_path)
    configs.refresh()
    assert configs.event_filter is None and configs.check() == {"state": "degraded", "apps": 0, "error": "away"}


def test_the_number_of_applications_is_bounded(store, tmp_path):
    configs = Configs(store, make_settings(tmp_path), max_apps=2)
    for app in ("a", "b", "a"):
        configs.put(app, {"deny": ["x"]})
    with pytest.raises(ApiError) as refused:
        configs.put("c", {"deny": ["x"]})
    assert refused.value.code == "limit_exceeded"
