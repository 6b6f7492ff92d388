"""Frames of a websocket: what a client may send, however it is cut into pieces, and what ends the connection with which code."""

import random
import sys

import pytest

from app.serving import websocket_frames as frames
from app.serving.websocket_frames import FrameError, MessageReader
from tests.unit.serving.websocket_client import frame


def read(data, max_bytes=1_000_000, pieces=None):
    reader, found = MessageReader(max_bytes), []
    for piece in pieces or [data]:
        reader.feed(piece)
        while (message := reader.next()) is not None:
            found.append(message)
    return found


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 127, 65_535, 65_536, 200_001])
def test_a_message_of_any_length_is_read_unchanged(length):
    payload = random.Random(length).randbytes(length)
    assert read(frame(frames.BINARY, payload)) == [(frames.BINARY, payload)]


def test_messages_are_the_same_in_whatever_pieces_they_arrive():
    messages = [(frames.TEXT, "größer 😀"), (frames.BINARY, b"\x00\xff"), (frames.PING, b"p"), (frames.TEXT, "x" * 300)]
    data = b"".join(frame(opcode, said.encode() if isinstance(said, str) else said) for opcode, said in messages)
    assert read(data) == messages
    assert read(data, pieces=[bytes([byte]) for byte in data]) == messages
    dice = random.Random(3)
    cuts = [0, *sorted(dice.sample(range(len(data)), 5)), len(data)]
    assert read(data, pieces=[data[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]) == messages


def test_fragments_are_one_message_and_a_ping_may_come_between_them():
    snowman = "☃".encode()
    data = frame(frames.TEXT, b"a" + snowman[:1], final=False) + frame(frames.PING, b"!") + frame(frames.CONTINUATION, b"", final=False)
    data += frame(frames.CONTINUATION, snowman[1:]) + frame(frames.TEXT, b"next")
    assert read(data) == [(frames.PING, b"!"), (frames.TEXT, "a☃"), (frames.TEXT, "next")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(frames.TEXT, b"x", masked=False), frames.PROTOCOL_ERROR),
        (frame(frames.TEXT, b"x", reserved=0x40), frames.PROTOCOL_ERROR),
        (frame(0x3, b"x"), frames.PROTOCOL_ERROR),
        (frame(0xB, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.CONTINUATION, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.TEXT, b"x", final=False) + frame(frames.TEXT, b"y"), frames.PROTOCOL_ERROR),
        (frame(frames.PING, b"x", final=False), frames.PROTOCOL_ERROR),
        (frame(frames.PING, b"x" * 126), frames.PROTOCOL_ERROR),
        (frame(frames.TEXT, b"\xff"), frames.NOT_UTF8),
        (frame(frames.TEXT, b"\xed\xa0\x80"), frames.NOT_UTF8),  # half of a surrogate pair
        (b"\x82\xff" + (2**63).to_bytes(8, "big"), frames.TOO_LARGE),
        (b"\x82\xfe" + (1001).to_bytes(2, "big"), frames.TOO_LARGE),
        (frame(frames.TEXT, b"", final=False) + frame(frames.CONTINUATION, b"", final=False) * 600, frames.TOO_LARGE),
        (frame(frames.BINARY, b"x" * 600, final=False) + frame(frames.CONTINUATION, b"x" * 600), frames.TOO_LARGE),
    ],
)
def test_an_invalid_frame_raises_the_close_code_of_the_rfc(data, code):
    with pytest.raises(FrameError) as caught:
        read(data, max_bytes=1000)
    assert caught.value.close_code == code


def test_a_length_over_the_limit_is_rejected_before_the_payload_arrives():
    reader = MessageReader(1000)
    reader.feed(b"\x82\xfe")
    assert reader.next() is None
    reader.feed((1001).to_bytes(2, "big"))
    with pytest.raises(FrameError):
        reader.next()


@pytest.mark.parametrize(("payload", "code"), [(b"", 1000), (b"\x03\xe9bye", 1001), (b"\x0f\xa0", 4000)])
def test_a_valid_close_is_answered_with_its_own_code(payload, code):
    assert frames.close_code(payload) == code


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff"])
def test_an_invalid_close_payload_raises(payload):
    with pytest.raises(FrameError):
        frames.close_code(payload)


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_an_encoded_frame_has_the_shortest_head_and_no_mask(length):
    encoded = frames.encode(frames.TEXT, b"x" * length)
    head = {0: b"\x81\x00", 125: b"\x81\x7d", 126: b"\x81\x7e\x00\x7e", 65_535: b"\x81\x7e\xff\xff"}.get(length)
    assert encoded == (head or b"\x81\x7f" + (65_536).to_bytes(8, "big")) + b"x" * length


def test_the_work_in_python_does_not_grow_with_the_length_of_a_message():
    short, long = frame(frames.TEXT, b"x" * 1000), frame(frames.TEXT, b"x" * 500_000)
    assert _lines_run(lambda: read(long)) == _lines_run(lambda: read(short))


def _lines_run(call):
    """Return how many lines of Python `call` runs."""
    lines = 0

    def trace(_frame, event, _arg):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize(("length", "ready"), [(1000, 0), (16_300, 0), (16_400, 16_400), (65_600, 65_600), (400_000, 400_000)])
def test_ready_bytes_is_the_size_of_a_large_frame_once_it_is_complete(length, ready):
    reader, data = MessageReader(500_000), frame(frames.TEXT, b"x" * length)
    reader.feed(data[:-1])
    assert reader.ready_bytes == 0
    reader.feed(data[-1:])
    assert reader.ready_bytes == ready
    assert reader.next() is not None and reader.ready_bytes == 0


def test_ready_bytes_counts_all_fragments_once_the_last_one_is_complete():
    reader = MessageReader(500_000)
    reader.feed(frame(frames.TEXT, b"x" * 70_000, final=False))
    assert reader.next() is None
    reader.feed(frame(frames.CONTINUATION, b"x" * 1000))
    assert reader.ready_bytes == 71_000


def test_max_bytes_may_change_between_two_messages():
    reader = MessageReader(100)
    reader.feed(frame(frames.TEXT, b"x" * 100) + frame(frames.TEXT, b"x" * 101))
    assert reader.next() is not None
    reader.max_bytes = 101
    assert reader.next() is not None
    reader.max_bytes = 100
    reader.feed(frame(frames.TEXT, b"x" * 101)[:8])
    with pytest.raises(FrameError):
        reader.next()
