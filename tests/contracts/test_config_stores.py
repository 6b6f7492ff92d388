"""What every store of configurations promises, proved over each twin, so that the humble one can be believed and the real one trusted."""

import pytest

from app.errors import ApiError
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from app.telemetry.config.store.file import FileConfigStore
from app.telemetry.config.store.memory import MemoryConfigStore
from app.telemetry.config.store.mongo import MongoConfigStore
from tests.apps import Clock

FULL = {"sample_rate": 0.25, "max_batch": 7, "flush_interval_ms": 1000, "allow": ["a.*", "é😀"], "deny": ["$x", "*"]}


@pytest.fixture(params=["memory", "file", "mongo"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryConfigStore()
    if request.param == "file":
        return FileConfigStore(tmp_path / "telemetry_config.json")
    mongo.connect(request.getfixturevalue("mongo_uri"), 5000)
    return MongoConfigStore(Clock())


def test_a_new_store_has_no_overrides(store):
    assert store.read_all() == {}
    with pytest.raises(ApiError) as refused:
        store.delete("web")
    assert refused.value.code == "not_found"


def test_what_is_put_is_found_again_as_it_was(store):
    store.put("web", FULL)
    store.put("we.b$ 😀/x", {"deny": []})
    assert store.read_all() == {"web": FULL, "we.b$ 😀/x": {"deny": []}}


def test_the_last_write_is_the_whole_of_it(store):
    store.put("web", FULL)
    store.put("web", {"sample_rate": 0.0})
    assert store.read_all() == {"web": {"sample_rate": 0.0}}


def test_what_is_deleted_is_gone_and_the_others_stay(store):
    store.put("web", FULL)
    store.put("shop", FULL)
    store.delete("web")
    assert store.read_all() == {"shop": FULL}


def refused(call, *arguments):
    with pytest.raises(ApiError) as refusal:
        call(*arguments)
    return refusal.value.code


def test_who_says_what_must_be_there_changes_only_that(store):
    assert refused(store.put, "web", {"max_batch": 5}, {"max_batch": 4}) == "precondition_failed"
    store.put("web", FULL, {})
    assert refused(store.put, "web", {"max_batch": 5}, {}) == "precondition_failed"
    assert refused(store.put, "web", {"max_batch": 5}, {**FULL, "max_batch": 8}) == "precondition_failed"
    assert refused(store.put, "web", {"max_batch": 5}, {"max_batch": 7}) == "precondition_failed"
    store.put("web", {"max_batch": 5}, FULL)
    assert store.read_all() == {"web": {"max_batch": 5}}
    assert refused(store.delete, "web", FULL) == refused(store.delete, "web", {}) == "precondition_failed"
    store.delete("web", {"max_batch": 5})
    assert store.read_all() == {}
    assert refused(store.delete, "web", {"max_batch": 5}) == "not_found"


def test_what_a_reader_changes_stays_with_the_reader(store):
    store.put("web", FULL)
    store.read_all().clear()
    assert store.read_all() == {"web": FULL}


# --- the file alone


@pytest.mark.parametrize(
    "text, reason",
    [("{", "not JSON"), ("[]", "form"), ('{"apps": []}', "form"), ('{"apps": {}, "x": 1}', "form"), ('{"apps": {"web": 5}}', "Invalid"),
     ('{"apps": {"web": {"sampleRate": 2}}}', "sampleRate: Must be a number"), ('{"apps": {"web": {"rate": 1}}}', "rate: Unknown")],
)  # fmt: skip
def test_a_file_that_a_hand_has_broken_is_unavailable_with_the_reason_and_never_written_over(tmp_path, text, reason):
    path = tmp_path / "telemetry_config.json"
    path.write_text(text)
    store = FileConfigStore(path)
    for call in (store.read_all, lambda: store.put("web", FULL), lambda: store.delete("web")):
        with pytest.raises(StorageUnavailable, match=reason):
            call()
    assert path.read_text() == text


def test_two_processes_see_what_the_other_wrote(tmp_path):
    one, two = FileConfigStore(tmp_path / "c.json"), FileConfigStore(tmp_path / "c.json")
    one.put("web", FULL)
    two.put("shop", FULL)
    assert one.read_all() == two.read_all() == {"web": FULL, "shop": FULL}


# --- MongoDB alone


def test_a_document_of_another_hand_costs_only_itself(mongo_uri):
    database = mongo.connect(mongo_uri, 5000)
    database.telemetry_config.insert_many([{"_id": "bad", "sampleRate": "x"}, {"_id": "good", "sampleRate": 1, "newer": 5}])
    assert MongoConfigStore(Clock()).read_all() == {"good": {"sample_rate": 1.0}}


def test_a_document_whose_identity_is_no_name_costs_only_itself(mongo_uri):
    database = mongo.connect(mongo_uri, 5000)
    store = MongoConfigStore(Clock())
    store.put("good", {"sample_rate": 1.0})
    database.telemetry_config.insert_one({"_id": {"a": 1}, "sampleRate": 0.5})
    assert store.read_all() == {"good": {"sample_rate": 1.0}}


def test_a_mongo_that_is_away_is_unavailable():
    from tests.servers.ports import free_port

    mongo.connect(f"mongodb://127.0.0.1:{free_port()}/x", 200)
    store = MongoConfigStore(Clock())
    for call in (store.read_all, lambda: store.put("web", FULL), lambda: store.delete("web")):
        with pytest.raises(StorageUnavailable):
            call()


@pytest.mark.parametrize("before", [{}, {"max_batch": 5}], ids=["new", "there"])
@pytest.mark.parametrize("is_expected", [True, False])
def test_a_unique_index_of_an_operator_refuses_and_is_no_answer_to_what_is_there(mongo_uri, before, is_expected):
    mongo.connect(mongo_uri, 5000).telemetry_config.create_index("maxBatch", unique=True)
    store = MongoConfigStore(Clock())
    store.put("other", {"max_batch": 7})
    if before:
        store.put("web", before)
    with pytest.raises(ApiError) as caught:
        store.put("web", {"max_batch": 7}, before if is_expected else None)
    assert caught.value.code == "refused" and store.read_all().get("web", {}) == before
