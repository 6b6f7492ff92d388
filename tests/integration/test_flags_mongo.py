"""Flags in a real MongoDB: what other hands put there, and what happens while it is away."""

import time
from datetime import datetime

import mongoengine
import pytest
from bson.datetime_ms import DatetimeMS
from structlog.testing import capture_logs

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.flags import Flags
from app.flags.rules import Context
from app.flags.store.mongo import FlagDocument, MongoFlagStore
from app.metrics import Metrics
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from tests.apps import NOW, Clock, bearer, error_of, make_app

ADMIN = bearer("boss", role="admin")
BY_HAND = {"key": "by-hand", "enabled": True, "rules": {"percent": 100}, "updatedAt": datetime(2025, 10, 9), "version": 1}


@pytest.fixture
def database(mongo_uri):
    return mongo.connect(mongo_uri, 5000)


@pytest.fixture
def store(database):
    return MongoFlagStore()


def test_a_document_has_the_key_as_its_id_and_dates_as_dates(database, store):
    store.create(Flag("a", True, {"role": ["x"]}, NOW, None, None, 1, NOW))
    [document] = database.flags.find()
    date = datetime(2025, 10, 9, 8, 53, 20)
    assert document == {
        "_id": "a", "key": "a", "enabled": True, "rules": {"role": ["x"]}, "startAt": date, "endAt": None,
        "description": None, "version": 1, "updatedAt": date,
    }  # fmt: skip


def test_no_index_is_made_by_using_the_collection(database, store):
    store.create(Flag("a"))
    assert list(database.flags.index_information()) == ["_id_"]
    assert FlagDocument._get_collection_name() == "flags"


def test_a_manually_inserted_document_is_a_flag_like_any_other(database, store):
    database.flags.insert_one(dict(BY_HAND))
    flag = store.get("by-hand")
    assert store.list_all() == [flag]
    store.replace(Flag("by-hand", False, version=2), 1)
    with pytest.raises(ApiError) as refused:
        store.create(Flag("by-hand"))
    assert refused.value.code == "conflict"
    store.delete("by-hand", 2)
    assert database.flags.count_documents({}) == 0


def test_a_document_with_an_object_as_its_id_is_a_flag_like_any_other(database, store):
    database.flags.insert_one({"_id": {"a": 1}, "key": "foreign", "enabled": True, "rules": {}})
    store.create(Flag("good"))
    for _ in range(2):
        assert sorted(flag.key for flag in store.list_all()) == ["foreign", "good"]


def test_a_field_of_a_newer_version_is_ignored(database, store):
    database.flags.insert_one({**BY_HAND, "owner": "team", "variants": []})
    assert [flag.key for flag in store.list_all()] == ["by-hand"]


def test_a_document_without_a_version_is_changed_and_deleted_like_any_other(database, store):
    versionless = {name: value for name, value in BY_HAND.items() if name != "version"}
    database.flags.insert_one(dict(versionless))
    flags = Flags(store, Clock(), Metrics(), announce=lambda change: None)
    seen = flags.get("by-hand").fingerprint
    assert flags.patch("by-hand", {"enabled": False}, frozenset({seen})).version == 2
    with pytest.raises(ApiError) as refused:
        flags.patch("by-hand", {"enabled": True}, frozenset({seen}))
    assert refused.value.code == "precondition_failed"
    database.flags.replace_one({"key": "by-hand"}, versionless)
    flags.delete("by-hand", frozenset({seen}))
    assert store.list_all() == []


SPOILT = [{"rules": {"moonPhase": "full"}}, {"rules": {"percent": "50"}}, {"rules": None}, {"enabled": 1}, {"key": 1}]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_document_with_mistakes_is_omitted_and_logged_once_and_can_be_deleted(database, store, spoilt):
    database.flags.insert_one({**BY_HAND, **spoilt})
    store.create(Flag("good"))
    with capture_logs() as lines:
        assert [flag.key for flag in store.list_all() + store.list_all()] == ["good", "good"]
    assert [line["event"] for line in lines] == ["flag_not_understood"]
    if "key" not in spoilt:
        with pytest.raises(StorageUnavailable):
            store.get("by-hand")
        store.delete("by-hand", None)
        assert [flag.key for flag in store.list_all()] == ["good"]


def test_a_document_that_the_driver_cannot_read_means_that_the_store_is_away(database, store):
    database.flags.insert_one({**BY_HAND, "startAt": DatetimeMS(2**60)})
    for call in (store.list_all, lambda: store.get("by-hand")):
        with pytest.raises(StorageUnavailable):
            call()


def test_a_write_that_the_driver_repeats_does_not_conflict_with_itself(store):
    """The answer to the first attempt was lost: the second finds the version counted already, and the content its own."""
    store.create(Flag("a", updated_at=NOW))
    changed = Flag("a", True, version=2, updated_at=NOW + 1)
    store.replace(changed, 1)
    store.replace(changed, 1)
    assert store.get("a") == changed


def test_a_change_by_another_worker_is_loaded_and_announced_by_the_next_refresh(store):
    announced = []
    here = Flags(store, Clock(), Metrics(), announce=announced.append)
    there = Flags(MongoFlagStore(), Clock(), Metrics(), announce=lambda change: None)
    here.refresh()
    there.create({"key": "a", "enabled": True})
    here.refresh()
    assert [flag.key for flag, _ in here.evaluate_all(Context())] == ["a"]
    assert [change["key"] for change in announced] == ["a"]


def test_the_application_keeps_its_flags_in_mongo(tmp_path, mongo_uri):
    first, second = (make_app(tmp_path / name, mongo_uri=mongo_uri).test_client() for name in ("first", "second"))
    tag = first.post("/api/flags", json={"key": "a", "enabled": True}, headers=ADMIN).headers["ETag"]
    assert second.get("/api/flags/a", headers=ADMIN).headers["ETag"] == tag
    assert second.patch("/api/flags/a", json={"enabled": False}, headers={**ADMIN, "If-Match": tag}).status_code == 200
    assert first.patch("/api/flags/a", json={"enabled": True}, headers={**ADMIN, "If-Match": tag}).status_code == 412


def test_while_mongo_is_away_flags_are_served_and_writes_get_503_with_retry_after(tmp_path, own_mongo):
    app = make_app(tmp_path, mongo_uri=own_mongo.new_database(), mongo_timeout_ms=500)
    client, flags = app.test_client(), app.extensions["switchyard"].flags
    client.post("/api/flags", json={"key": "a", "enabled": True}, headers=ADMIN)
    flags.refresh()
    own_mongo.kill()
    flags.refresh()
    assert client.get("/api/flags", headers=ADMIN).get_json()["flags"][0]["on"] is True
    assert flags.check()["state"] == "degraded"
    started = time.monotonic()
    response = client.patch("/api/flags/a", json={"enabled": False}, headers=ADMIN)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert time.monotonic() - started < 2
    assert error_of(response)["message"] == "MongoDB is away; try again later."
    assert client.get("/api/flags/unheard-of", headers=ADMIN).get_json() == response.get_json()
    assert f"127.0.0.1:{own_mongo.port}" in client.get("/healthz", headers=ADMIN).get_json()["dependencies"]["flags"]["error"]
    own_mongo.start()
    assert client.patch("/api/flags/a", json={"enabled": False}, headers=ADMIN).status_code == 200
    flags.refresh()
    assert flags.check()["state"] == "up"
    assert client.get("/api/flags", headers=ADMIN).get_json() == {"flags": []}


def test_a_mongo_that_requires_a_login_means_that_the_store_is_away(mongo_server_with_login):
    mongo.connect(f"mongodb://127.0.0.1:{mongo_server_with_login.port}/nobody", 2000)
    for call in (MongoFlagStore().list_all, lambda: MongoFlagStore().create(Flag("a")), lambda: MongoFlagStore().delete("a", None)):
        with pytest.raises(StorageUnavailable):
            call()
    mongoengine.disconnect()


def flag_named(key, description):
    return Flag(key, True, {}, None, None, description, 1, NOW)


def test_a_flag_that_an_operators_unique_index_forbids_is_refused_and_not_a_conflict(database, store):
    database.flags.create_index("description", unique=True)
    store.create(flag_named("a", "one"))
    store.create(flag_named("b", "two"))
    for call in (lambda: store.create(flag_named("c", "one")), lambda: store.replace(flag_named("b", "one"), 1)):
        with pytest.raises(ApiError) as caught, capture_logs() as logs:
            call()
        assert caught.value.code == "refused" and "c" not in [flag.key for flag in store.list_all()]
        assert [line["event"] for line in logs] == ["flag_refused"]


@pytest.mark.parametrize("by", ["_id", "key"])
def test_a_flag_that_is_inserted_between_the_check_and_the_insert_is_a_conflict(database, store, monkeypatch, by):
    """Also one with an `_id` of its own, which the unique index on `key` finds."""
    from app.flags.store import mongo as flags_in_mongo

    database.flags.create_index("key", unique=True)
    look = flags_in_mongo._is_there

    def look_too_early(key):
        monkeypatch.setattr(flags_in_mongo, "_is_there", look)
        database.flags.insert_one({**BY_HAND, "key": "a", "_id": "a" if by == "_id" else "other"})
        return False

    monkeypatch.setattr(flags_in_mongo, "_is_there", look_too_early)
    with pytest.raises(ApiError) as caught:
        store.create(flag_named("a", "one"))
    assert caught.value.code == "conflict"
