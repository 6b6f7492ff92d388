"""Lines that cannot become events are kept, with the reason, once."""

import json

import pytest

from app.spool.rejected import RejectedFile


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
