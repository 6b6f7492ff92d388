"""What a server kept without MongoDB is brought along once, whatever gets in the way."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.store.file import FileFlagStore
from app.flags.store.memory import MemoryFlagStore
from app.storage.embedded_file import EmbeddedFile
from app.storage.errors import StorageUnavailable
from tests.apps import NOW

FLAG = Flag("a", True, {"percent": 5}, NOW, None, "why", 7, NOW)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "flags.json"
    for flag in (FLAG, Flag("b", True)):
        FileFlagStore(path).create(flag)
    return path


@pytest.fixture
def store():
    return MemoryFlagStore()


def file(path, add):
    return EmbeddedFile(path, FileFlagStore(path).by_key, lambda key, flag: add(flag))


def test_everything_is_added_as_it_was_and_the_file_is_set_aside(path, store):
    file(path, store.create).move()
    assert store.get("a") == FLAG and len(store.list_all()) == 2
    assert [flag["key"] for flag in json.loads(path.with_name("flags.json.moved").read_text())["flags"]] == ["a", "b"]
    assert not path.exists()


def test_what_is_there_under_the_same_key_stays_as_it_is(path, store):
    store.create(Flag("b", False))
    with capture_logs() as lines:
        file(path, store.create).move()
    assert store.get("b").enabled is False and store.get("a") == FLAG
    assert lines[0]["event"] == "embedded_file_moved" and lines[0]["there_already"] == ["b"]


def test_once_moved_nothing_is_brought_back(path, store):
    embedded = file(path, store.create)
    embedded.move()
    store.delete("a", None)
    embedded.move()
    assert [flag.key for flag in store.list_all()] == ["b"]


def test_of_several_workers_one_does_it(path, store):
    with capture_logs() as lines, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: file(path, store.create).move(), range(8)))
    assert [line["event"] for line in lines] == ["embedded_file_moved"]


@pytest.mark.parametrize("error", [StorageUnavailable("AutoReconnect: db:27017", message="away"), ApiError("limit_exceeded")])
def test_where_the_store_does_not_take_it_the_file_stays_until_it_does_and_the_log_says_so_once(path, store, error):
    def refuse(flag):
        if store.list_all():
            raise error
        store.create(flag)

    add = [refuse]
    embedded = file(path, lambda flag: add[0](flag))
    with capture_logs() as lines:
        embedded.move()
        embedded.move()
        assert path.exists()
        add[0] = store.create
        embedded.move()
    assert [line["event"] for line in lines] == ["embedded_file_not_moved", "embedded_file_moved"]
    assert lines[0]["reason"] == error.summary
    assert len(store.list_all()) == 2 and not path.exists()


def test_a_file_that_cannot_be_understood_stays_and_the_log_says_why(path, store):
    path.write_text("{")
    with capture_logs() as lines:
        file(path, store.create).move()
    assert "not JSON" in lines[0]["reason"]
    assert path.read_text() == "{" and store.list_all() == []


def test_what_waits_in_it_can_be_recalled_until_it_is_moved(path, store):
    embedded = file(path, store.create)
    recalled, written_at = embedded.recall()
    assert recalled["a"] == FLAG and written_at > NOW
    embedded.move()
    assert embedded.recall() is None


def test_where_there_is_no_file_nothing_is_done(tmp_path, store):
    file(tmp_path / "flags.json", store.create).move()
    assert list(tmp_path.iterdir()) == []
