"""What is kept of MongoDB's last word, by several workers, and what is made of a copy that cannot be used."""

import os

import pytest
from structlog.testing import capture_logs

from app.storage.local_copy import LocalCopy
from tests.apps import NOW

OF = "db:27017/switchyard"


def only_lists(value):
    assert isinstance(value, list)
    return value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "snapshots" / "things.json"


@pytest.fixture
def make(path):
    return lambda of=OF: LocalCopy(path, of, list, only_lists)


def date(path, ms):
    os.utime(path, (ms / 1000, ms / 1000))


def test_what_was_kept_is_recalled_by_another_process_with_the_time_until_which_it_was_true(make, path):
    make().keep([1, {"a": "é"}])
    date(path, NOW)
    assert make().recall() == ([1, {"a": "é"}], NOW)


def test_where_nothing_was_kept_nothing_is_recalled_and_nobody_is_warned(make):
    with capture_logs() as lines:
        assert make().recall() is None
    assert lines == []


def test_where_there_is_no_copy_yet_what_was_before_is_recalled_and_after_that_the_copy(path):
    copy = LocalCopy(path, OF, list, only_lists, before=lambda: ([5], NOW))
    assert copy.recall() == ([5], NOW)
    copy.keep([])
    assert copy.recall()[0] == []


def test_what_has_not_changed_is_not_written_again_and_is_known_to_be_true_until_now(make, path):
    copy = make()
    copy.keep([1])
    date(path, NOW)
    written = path.stat()
    copy.keep([1])
    make().keep([1])
    assert path.stat().st_ino == written.st_ino
    assert path.stat().st_mtime > written.st_mtime


def test_of_several_workers_the_one_that_read_last_is_right_whoever_wrote_last(make):
    one, two = make(), make()
    one.keep([1])
    two.keep([2])
    one.keep([1])
    two.keep([2])
    assert make().recall()[0] == [2]


def test_a_copy_that_was_deleted_is_written_again(make, path):
    copy = make()
    copy.keep([1])
    path.unlink()
    copy.keep([1])
    assert make().recall()[0] == [1]


SHAPELESS = ["", "{", "[]", "null", '{"content": [1]}', f'{{"of": "{OF}"}}', f'{{"of": "{OF}", "content": 5}}']


@pytest.mark.parametrize("text", [*SHAPELESS, '{"of": "elsewhere", "content": []}'])
def test_a_broken_or_foreign_copy_is_ignored_with_a_warning_and_written_over(make, path, text):
    path.parent.mkdir()
    path.write_text(text)
    with capture_logs() as lines:
        assert make().recall() is None
    assert [(line["event"], line["log_level"]) for line in lines] == [("local_copy_ignored", "warning")]
    make().keep([1])
    assert make().recall()[0] == [1]


def test_the_copy_of_another_database_says_of_which(make):
    make("other:27017/x").keep([1])
    with capture_logs() as lines:
        assert make().recall() is None
    assert "other:27017/x" in lines[0]["reason"] and OF in lines[0]["reason"]


def test_a_disk_that_does_not_take_it_is_one_warning_and_no_error(make, path):
    path.parent.write_text("a file where the folder should be")
    copy = make()
    with capture_logs() as lines:
        copy.keep([1])
        copy.keep([2])
        path.parent.unlink()
        copy.keep([2])
    assert [line["event"] for line in lines] == ["local_copy_not_written"]
    assert make().recall()[0] == [2]
