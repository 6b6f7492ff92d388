"""What of a file can be moved, what cannot and why, and where to go on."""

from io import BytesIO

import pytest
from bson import decode as decode_bson
from hypothesis import given
from hypothesis import strategies as st

from app.storage.segments.segment import MAX_LINE_BYTES
from app.telemetry.event import StoredEvent
from app.telemetry.spool import chunks
from app.telemetry.spool.chunks import read_chunk
from app.telemetry.spool.event_lines import encode
from tests.apps import NOW


def event(name, **fields):
    return StoredEvent(**{"id": name, "app": "web", "type": "event", "name": name, "props": {}, "ts": NOW, "created_at": NOW, **fields})


def line(name, **fields):
    return encode([event(name, **fields)])


def read_all(text, *, is_complete=True, max_lines=3):
    """(ids, unusable, end), chunk after chunk."""
    ids, unusable, end, file = [], [], 0, BytesIO(text)
    while True:
        chunk = read_chunk(file, end, is_complete=is_complete, max_lines=max_lines)
        if chunk.end == end:
            return ids, unusable, end
        ids += [decode_bson(document)["_id"] for document in chunk.documents]
        unusable += chunk.unusable
        end = chunk.end


def test_every_line_is_read_once_and_in_order():
    text = b"".join(line(f"e{n}") for n in range(10))
    assert read_all(text) == ([f"e{n}" for n in range(10)], [], len(text))


def test_a_line_that_is_no_event_costs_only_itself():
    ids, unusable, _ = read_all(line("a") + b"nonsense\n" + line("b") + b'{"_id":"x"}\n' + line("c"))
    assert ids == ["a", "b", "c"]
    assert [text for text, _ in unusable] == [b"nonsense\n", b'{"_id":"x"}\n']


UNUSABLE = {
    "a whole number beyond 64 bits": line("x", props={"n": 2**63}),
    "NUL": line("x", props={"a\0b": 1}),
    "32 levels": line("x", props={"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}),
    "a time": line("x", ts=-1),
    "between 1970 and 9999": line("x", created_at=10**15),
    "UTF-8": b'{"_id":"\xff"}\n',
    "int": line("x").replace(b'"ts":%d' % NOW, b'"ts":"%d"' % NOW),
}


@pytest.mark.parametrize("fragment", UNUSABLE)
def test_what_mongodb_could_not_hold_is_unusable_with_its_reason(fragment):
    ids, unusable, _ = read_all(line("a") + UNUSABLE[fragment] + line("b"))
    assert ids == ["a", "b"]
    assert fragment.lower() in unusable[0][1].lower()


def test_while_its_writer_lives_the_last_line_waits_for_its_newline():
    text = line("a") + line("b")[:-1]
    assert read_all(text, is_complete=False) == (["a"], [], len(line("a")))


def test_a_last_line_that_only_lacks_its_newline_is_an_event():
    text = line("a") + line("b")[:-1]
    assert read_all(text) == (["a", "b"], [], len(text))


def test_a_last_line_that_was_cut_off_is_named_as_such():
    text = line("a") + line("b")[:-9]
    ids, unusable, end = read_all(text)
    assert (ids, end) == (["a"], len(text))
    assert unusable[0][1].startswith("cut off")


def test_empty_lines_are_nothing():
    assert read_all(b"\n \n" + line("a") + b"\r\n") == (["a"], [], len(line("a")) + 5)


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_line_without_an_end_is_not_read_into_memory_at_once(is_complete):
    text = b"x" * (3 * MAX_LINE_BYTES + 5) + b"\n" + line("a")
    ids, unusable, end = read_all(text, is_complete=is_complete)
    assert (ids, end) == (["a"], len(text))
    assert max(len(piece) for piece, _ in unusable) == MAX_LINE_BYTES


def test_a_chunk_ends_with_so_many_bytes_too(monkeypatch):
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 300)
    text = b"".join(line(f"e{n}") for n in range(10))
    assert read_chunk(BytesIO(text), 0, is_complete=True, max_lines=500).end < len(text)
    assert read_all(text, max_lines=500)[0] == [f"e{n}" for n in range(10)]


pieces = st.one_of(
    st.integers(0, 50).map(lambda n: line(f"e{n}")),
    st.binary(max_size=20).filter(lambda text: b"\n" not in text).map(lambda text: text + b"\n"),
)


@given(parts=st.lists(pieces, max_size=12), cut=st.integers(0, 40), is_complete=st.booleans(), max_lines=st.integers(1, 5))
def test_for_any_file_everything_is_either_an_event_or_unusable_whatever_the_chunks(parts, cut, is_complete, max_lines):
    text = b"".join(parts)
    text = text[: max(0, len(text) - cut)]
    ids, unusable, end = read_all(text, is_complete=is_complete, max_lines=max_lines)
    whole = [piece for piece in text[:end].split(b"\n") if piece.strip()]
    assert len(ids) + len(unusable) == len(whole)
    assert ids == [piece.decode().split('"')[3] for piece in whole if piece.startswith(b'{"_id":"e') and piece not in _bare(unusable)]
    assert end == len(text) or (not is_complete and b"\n" not in text[end:])


def _bare(unusable):
    return [text.rstrip(b"\n") for text, _ in unusable]
