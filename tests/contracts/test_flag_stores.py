"""What every store of flags promises, proved over each twin, so that the humble one can be believed and the real one trusted."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.store.file import FileFlagStore
from app.flags.store.memory import MemoryFlagStore
from app.flags.store.mongo import MongoFlagStore
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from tests.apps import NOW

FULL = Flag("team.checkout:v2", True, {"role": ["admin", "bêta 😀"], "percent": 12.5}, NOW, NOW + 86_400_123, "why, in words", 3, NOW + 1)
PLAIN = Flag("plain", updated_at=NOW)


@pytest.fixture(params=["memory", "file", "mongo"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryFlagStore()
    if request.param == "file":
        return FileFlagStore(tmp_path / "flags.json")
    mongo.connect(request.getfixturevalue("mongo_uri"), 5000)
    return MongoFlagStore()


def refusal(call, *args):
    with pytest.raises(ApiError) as refused:
        call(*args)
    return refused.value.code


def test_a_new_store_has_no_flags(store):
    assert store.list_all() == []
    assert refusal(store.get, "plain") == "not_found"


def test_a_created_flag_is_read_back_unchanged(store):
    store.create(FULL)
    store.create(PLAIN)
    assert store.get(FULL.key) == FULL
    assert sorted(store.list_all(), key=lambda flag: flag.key) == [PLAIN, FULL]


def test_numbers_keep_their_type(store):
    store.create(Flag("whole", rules={"percent": 50}))
    store.create(FULL)
    assert [repr(store.get(key).rules["percent"]) for key in ("whole", FULL.key)] == ["50", "12.5"]


def test_a_second_flag_with_the_same_key_is_a_conflict(store):
    store.create(PLAIN)
    assert refusal(store.create, Flag("plain", True)) == "conflict"
    assert store.get("plain") == PLAIN


def test_of_concurrent_creations_of_one_key_one_succeeds(store):
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: _outcome(store.create, Flag("plain", description=str(n))), range(8)))
    assert sorted(outcomes) == ["conflict"] * 7 + ["done"]


def test_a_replacement_replaces_the_expected_version(store):
    store.create(FULL)
    store.create(PLAIN)
    bare = Flag(FULL.key, False, {}, None, None, None, version=4, updated_at=NOW + 2)
    store.replace(bare, 3)
    assert store.get(FULL.key) == bare
    assert store.get("plain") == PLAIN


def test_a_replacement_of_another_version_is_refused(store):
    store.create(FULL)
    assert refusal(store.replace, Flag(FULL.key, version=3), 2) == "precondition_failed"
    assert store.get(FULL.key) == FULL


def test_of_concurrent_replacements_of_one_version_one_succeeds(store):
    store.create(PLAIN)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: _outcome(store.replace, Flag("plain", description=str(n), version=2), 1), range(8)))
    assert sorted(outcomes) == ["done"] + ["precondition_failed"] * 7


def test_a_missing_flag_cannot_be_replaced_or_deleted(store):
    assert refusal(store.replace, PLAIN, 1) == "not_found"
    assert refusal(store.delete, "plain", None) == "not_found"
    assert refusal(store.delete, "plain", 1) == "not_found"


def test_deleting_a_flag_keeps_the_others(store):
    store.create(FULL)
    store.create(PLAIN)
    store.delete(FULL.key, 3)
    assert store.list_all() == [PLAIN]
    store.delete("plain", None)
    assert store.list_all() == []


def test_deleting_another_version_is_refused(store):
    store.create(FULL)
    assert refusal(store.delete, FULL.key, 2) == "precondition_failed"
    assert store.list_all() == [FULL]


def test_a_deleted_key_can_be_created_again(store):
    store.create(PLAIN)
    store.delete("plain", 1)
    store.create(PLAIN)
    assert store.list_all() == [PLAIN]


def test_a_returned_list_is_not_changed_by_later_writes(store):
    store.create(PLAIN)
    before = store.list_all()
    store.delete("plain", 1)
    before.append(FULL)
    assert store.list_all() == []


def _outcome(call, *args):
    try:
        call(*args)
    except StorageUnavailable:
        return "unavailable"
    except ApiError as error:
        return error.code
    return "done"
