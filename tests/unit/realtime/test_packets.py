"""Events as packets and websocket frames: encoded once for all."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio.packet import EVENT, Packet

from app.realtime.log import Message
from app.realtime.transport.packets import Batch, event_frame, events_frame
from tests.unit.realtime.fakes import frame_of


def message(seq=7, payload=b'{"a":1}', id="m"):
    return Message("t:1", "e", seq, id, 99, payload, "user")


def unframed(data):
    """The texts of unmasked text frames (RFC 6455, section 5.2)."""
    texts = []
    while data:
        assert data[0] == 0x81
        size_bytes = {126: 2, 127: 8}.get(data[1], 0)
        length = int.from_bytes(data[2 : 2 + size_bytes], "big") if size_bytes else data[1]
        texts.append(data[2 + size_bytes :][:length].decode())
        data = data[2 + size_bytes + length :]
    return texts


def test_an_event_carries_topic_payload_id_seq_ts_and_epoch():
    (packet,) = Batch([event_frame(message())]).packets
    assert frame_of(packet) == {"type": "event", "topic": "t:1", "payload": {"a": 1}, "id": "m", "seq": 7, "ts": 99, "epoch": "e"}


def test_what_was_skipped_comes_with_the_newest_message():
    (packet,) = Batch([event_frame(message(), (3, 6))]).packets
    assert frame_of(packet)["skipped"] == [3, 6]


def test_merged_messages_come_in_one_frame_with_the_first_and_the_last_number():
    (packet,) = Batch([events_frame([message(7), message(9)])]).packets
    frame = frame_of(packet)
    assert (frame["topic"], frame["epoch"], frame["first"], frame["last"]) == ("t:1", "e", 7, 9)
    assert frame["events"] == [{"payload": {"a": 1}, "id": "m", "seq": seq, "ts": 99} for seq in (7, 9)]


def test_a_packet_is_what_the_library_would_send():
    (packet,) = Batch([event_frame(message())]).packets
    decoded = Packet(encoded_packet=packet)
    assert (decoded.packet_type, decoded.namespace, decoded.id, decoded.data[0]) == (EVENT, "/realtime", None, "message")


@pytest.mark.parametrize("size", [1, 20, 30, 1000, 65_400, 65_420, 70_000])
def test_the_frames_of_a_batch_are_its_packets_after_one_another(size):
    payload = orjson.dumps("x" * size)
    batch = Batch([event_frame(message(seq, payload)) for seq in (1, 2, 3)])
    assert unframed(batch.frames) == [f"4{packet}" for packet in batch.packets]
    assert batch.bytes == len(batch.frames)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), st.text(max_size=20, alphabet='äb"\\\u2028e'))
def test_any_id_and_epoch_arrive_as_they_were_given(id, epoch):
    batch = Batch([event_frame(Message("t", epoch, 1, id, 99, b"null"))])
    (text,) = unframed(batch.frames)
    frame = frame_of(text[1:])
    assert (frame["id"], frame["epoch"], frame["payload"]) == (id, epoch, None)
