"""Every object of a JSON document becomes one piece, whatever the size of the blocks and wherever reading continues."""

import io
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.importing import json_pieces
from app.telemetry.importing.json_pieces import pieces_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],é ', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{[', max_size=3), inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3), max_size=5)


def pieces(text, start=0, depth=0):
    return list(pieces_of(io.BytesIO(text), start, depth))


LAYOUTS = {
    "array": lambda values: json.dumps(values),
    "pretty array": lambda values: json.dumps(values, indent=2) + "\n",
    "one after another": lambda values: "\n".join(json.dumps(value, indent=1, ensure_ascii=False) for value in values),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(values=objects, block=st.integers(1, 40))
def test_every_object_is_one_piece_and_reading_can_continue_after_each(layout, values, block):
    text = LAYOUTS[layout](values).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "BLOCK_BYTES", block)
        found = pieces(text)
        assert [json.loads(piece.text) for piece in found] == values
        for place, piece in enumerate(found):
            assert text[piece.start : piece.end] == piece.text
            assert pieces(text, piece.end, 0 if layout == "one after another" else 1) == found[place + 1 :]


@given(text=st.text('{}[]",\\ a1\n', max_size=60), block=st.integers(1, 20))
def test_of_any_text_only_commas_and_space_are_left_out(text, block):
    text = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "BLOCK_BYTES", block)
        found = pieces(text)
    assert all(text[piece.start : piece.end] == piece.text for piece in found)
    assert all(before.end <= after.start for before, after in pairwise(found))
    left_out = bytearray(text)
    for piece in reversed(found):
        del left_out[piece.start : piece.end]
    assert not left_out.strip(b" \n,[]}")


def test_text_between_two_objects_is_a_piece_of_its_own():
    found = [piece.text for piece in pieces(b'[{"a":1}, 5, {"b":2}] trailing {"torn": ')]
    assert found == [b'{"a":1}', b", 5, ", b'{"b":2}', b" trailing ", b'{"torn": ']


def test_an_object_without_an_end_takes_limited_memory(monkeypatch):
    monkeypatch.setattr(json_pieces, "MAX_PIECE_BYTES", 100_000)
    (piece,) = pieces(b'{"a":"' + b"x" * 1_000_000)
    assert len(piece.text) < 200_000
