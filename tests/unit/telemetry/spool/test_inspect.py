"""Repairing cuts nothing off but what is no event, wherever it is interrupted."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.storage.segments.rejected import RejectedFile
from app.telemetry.spool import inspect
from tests.unit.telemetry.spool.test_chunks import line


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "events-0001-1-a.jsonl"
    path.write_bytes(line("a") + b"nonsense\n" + line("b"))
    return path


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_repair_that_is_cut_short_has_changed_nothing_and_can_be_done_again(path, monkeypatch, step):
    def fail(*_):
        raise OSError(5, "cut short")

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync" if step == "fsync" else "pathlib.Path.rename", fail)
        with pytest.raises(OSError):
            inspect.repair(path)
    assert path.read_bytes() == before
    assert [problem.number for problem in inspect.repair(path)] == [2]
    assert path.read_bytes() == line("a") + line("b")
    assert RejectedFile(path).path.read_text().count("\n") == 1


def test_a_file_in_order_is_not_written_again(path):
    inspect.repair(path)
    inode = path.stat().st_ino
    assert inspect.repair(path) == []
    assert path.stat().st_ino == inode


def test_who_may_read_it_stays_as_it_was(path):
    os.chmod(path, 0o640)
    inspect.repair(path)
    assert path.stat().st_mode & 0o777 == 0o640


anything = st.one_of(st.binary(max_size=30), st.sampled_from([line("a"), line("b"), b"\n", b"x" * 200, b"x" * 450]))


@settings(deadline=None, max_examples=60)
@given(text=st.lists(anything).map(b"".join))
def test_after_a_repair_any_file_verifies_and_every_line_is_in_one_of_the_two(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("spool") / "events-0001-1-a.jsonl"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.storage.segments.segment.MAX_LINE_BYTES", 200)
        patch.setattr("app.telemetry.spool.chunks.MAX_LINE_BYTES", 200)
        aside = inspect.repair(path)
        assert inspect.problems(path) == []
    assert bool(aside) == RejectedFile(path).path.exists()
    kept = [piece + b"\n" for piece in path.read_bytes().split(b"\n") if piece.strip()]
    assert {piece.strip() + b"\n" for piece in kept} <= {line("a"), line("b")}
    found = [piece for piece in text.split(b"\n") if piece.strip()]
    assert len(b"".join(kept + [problem.line for problem in aside]).replace(b"\n", b"")) == len(b"".join(found))
