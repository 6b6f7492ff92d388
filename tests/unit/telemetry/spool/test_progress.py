"""Progress says less than what is done, never more."""

import pytest

from app.telemetry.spool.progress import Progress


@pytest.fixture
def make(tmp_path):
    def make(target="db1:27017/a"):
        progress = Progress(tmp_path / ".progress", target)
        progress.load()
        return progress

    return make


def test_what_was_saved_is_known_to_the_next_process(make, tmp_path):
    progress = make()
    progress.note(tmp_path / "a", 7, 100)
    progress.count("drained", 3)
    progress.count("drained", 2)
    progress.save()
    assert make().offset(tmp_path / "a", 7) == 100
    assert make().state == {"drained": 5}


def test_another_file_of_the_same_name_begins_at_its_beginning(make, tmp_path):
    progress = make()
    progress.note(tmp_path / "a", 7, 100)
    progress.save()
    assert make().offset(tmp_path / "a", 8) == 0


def test_what_went_into_another_database_does_not_count_here(make, tmp_path):
    progress = make()
    progress.note(tmp_path / "a", 7, 100)
    progress.save()
    assert make(target="db2:27017/a").offset(tmp_path / "a", 7) == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"target":"db1:27017/a"}', b'{"target":"db1:27017/a","files":{"a":5},"state":{}}'])
def test_a_file_that_cannot_be_read_means_beginning_anew(make, tmp_path, text):
    (tmp_path / ".progress").write_bytes(text)
    assert make().offset(tmp_path / "a", 7) == 0
    assert make().state == {}


def test_files_that_are_gone_are_forgotten(make, tmp_path):
    progress = make()
    progress.note(tmp_path / "a", 7, 100)
    progress.note(tmp_path / "b", 8, 200)
    progress.keep_only([tmp_path / "b"])
    progress.save()
    assert (make().offset(tmp_path / "a", 7), make().offset(tmp_path / "b", 8)) == (0, 200)


def test_a_disk_that_takes_nothing_costs_the_progress_and_nothing_else(tmp_path):
    progress = Progress(tmp_path / "gone" / ".progress", "x")
    progress.note(tmp_path / "a", 7, 100)
    progress.save()
    assert progress.offset(tmp_path / "a", 7) == 100
