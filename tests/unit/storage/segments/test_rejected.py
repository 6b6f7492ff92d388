"""Lines that cannot become events are kept, with the reason, once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.segments.rejected import RejectedFile

ROOT = Path(__file__).parents[4]


@pytest.fixture
def segment(tmp_path):
    return tmp_path / "events-1.jsonl"


def rows(segment):
    return [json.loads(row) for row in RejectedFile(segment).path.read_text().splitlines()]


def test_a_line_is_kept_beside_its_file_with_the_reason(segment):
    assert RejectedFile(segment).add([(b"nonsense\n", "no JSON")]) == 1
    assert RejectedFile(segment).path.name == "events-1.jsonl.rejected"
    assert rows(segment) == [{"line": "nonsense", "reason": "no JSON"}]


def test_nothing_is_made_where_nothing_is_rejected(segment):
    assert RejectedFile(segment).add([]) == 0
    assert not RejectedFile(segment).path.exists()


def test_a_line_that_is_there_already_is_not_added_again_by_another_process_either(segment):
    RejectedFile(segment).add([(b"a\n", "no"), (b"a\n", "no")])
    assert RejectedFile(segment).add([(b"a\n", "no"), (b"b\n", "no")]) == 1
    assert [row["line"] for row in rows(segment)] == ["a", "b"]


def test_bytes_that_are_no_text_can_be_had_back(segment):
    RejectedFile(segment).add([(b"\xff\xfe{\n", "no UTF-8")])
    assert rows(segment)[0]["line"].encode("utf-8", "surrogateescape") == b"\xff\xfe{"
    assert RejectedFile(segment).add([(b"\xff\xfe{\n", "no UTF-8")]) == 0


def test_a_row_that_a_crash_cut_through_is_written_again(segment):
    RejectedFile(segment).add([(b"a\n", "no"), (b"b\n", "no")])
    text = RejectedFile(segment).path.read_bytes()
    RejectedFile(segment).path.write_bytes(text[:-5])
    assert RejectedFile(segment).add([(b"b\n", "no")]) == 1
    assert [row["line"] for row in rows(segment)] == ["a", "b"]


def test_rows_that_somebody_edited_are_left_alone(segment):
    RejectedFile(segment).path.write_text('looked at\n{"note": 1}\n')
    assert RejectedFile(segment).add([(b"a\n", "no")]) == 1
    assert RejectedFile(segment).path.read_text().startswith('looked at\n{"note": 1}\n')


def test_rows_that_another_process_has_added_since_are_known(segment):
    first, second = RejectedFile(segment), RejectedFile(segment)
    first.add([(b"a\n", "no")])
    second.add([(b"b\n", "no")])
    assert first.add([(b"b\n", "no"), (b"c\n", "no")]) == 1
    assert [row["line"] for row in rows(segment)] == ["a", "b", "c"]


def test_a_file_that_was_emptied_or_removed_meanwhile_is_filled_again(segment):
    file = RejectedFile(segment)
    file.add([(b"a\n", "no")])
    file.path.write_bytes(b"")
    assert file.add([(b"a\n", "no")]) == 1
    file.path.unlink()
    assert file.add([(b"a\n", "no")]) == 1
    assert [row["line"] for row in rows(segment)] == ["a"]


def test_a_file_can_be_kept_in_another_folder(segment, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = RejectedFile(segment, folder)
    file.add([(b"a\n", "no")])
    assert file.path == folder / "events-1.jsonl.rejected" and not RejectedFile(segment).path.exists()


ADDING = """
import sys
from pathlib import Path
from app.storage.segments.rejected import RejectedFile
for number in range(150):
    path = Path(sys.argv[1])
    RejectedFile(path).add([(f"{sys.argv[2]} {number} {'x' * (37 * number % 4096)}".encode(), "no")])
"""


def test_processes_that_mend_one_file_at_once_cut_no_row_of_each_other(segment):
    names = ("a", "b", "c")
    processes = [subprocess.Popen([sys.executable, "-c", ADDING, str(segment), name], cwd=ROOT) for name in names]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(row["line"].split()[:2] for row in rows(segment)) == sorted([name, str(n)] for name in names for n in range(150))


def test_who_holds_the_lock_for_too_long_is_an_error_and_no_standstill(segment, monkeypatch):
    monkeypatch.setattr("app.storage.segments.rejected.LOCK_PATIENCE_S", 0.05)
    file = RejectedFile(segment)
    with file._locked(), pytest.raises(OSError, match="locked by another process"):
        RejectedFile(segment).add([(b"a\n", "no")])
