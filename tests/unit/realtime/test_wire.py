"""Socket.IO packets, read strictly."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio.packet import ACK, EVENT

from app.realtime.transport.wire import RESERVED_EVENTS, Call, Json, WirePacket


def test_an_event_carries_the_callback_that_waits_before_its_arguments():
    assert WirePacket(encoded_packet='2/realtime,12["message",{"a":1}]').data == ["message", Call(12), {"a": 1}]
    assert WirePacket(encoded_packet='2["ping"]').data == ["ping", Call(None)]


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
def test_no_client_can_send_the_events_that_the_library_keeps_for_itself(name):
    with pytest.raises(ValueError, match="reserved"):
        WirePacket(encoded_packet=orjson.dumps([name, {}]).decode().join(("2", "")))


@pytest.mark.parametrize("text", ["2{}", "2[]", "2[1]", "2[null]", "2/realtime,", "2[[]]", "51-[", "599-[]", "517-[]"])
def test_an_event_without_a_name_or_with_many_attachments_is_refused(text):
    with pytest.raises(ValueError):
        WirePacket(encoded_packet=text)


@given(st.text(max_size=40))
def test_any_text_is_a_packet_or_a_value_error(text):
    try:
        packet = WirePacket(encoded_packet=text)
    except ValueError:
        return
    if packet.packet_type == EVENT and text:
        assert isinstance(packet.data[1], Call)


def test_what_is_sent_is_compact_json_and_may_hold_json_text():
    packet = WirePacket(ACK, data=[{"payload": orjson.Fragment(b'{"a":1}'), "s": "\u00e9"}], namespace="/realtime", id=3)
    assert packet.encode() == '3/realtime,3[{"payload":{"a":1},"s":"\u00e9"}]'


@pytest.mark.parametrize("text", ["[", '["message",{"payload":NaN}]', '["message",{"payload":1e999}]', "[" * 60_000])
def test_an_event_that_is_no_json_becomes_a_message_that_nobody_can_read_with_the_callback_that_waits(text):
    event, call, said = WirePacket(encoded_packet="2/realtime,7" + text).data
    assert (event, call) == ("message", Call(7)) and "not JSON" in said.sentence
    assert "not JSON" in WirePacket(encoded_packet="0/realtime," + text).data.sentence


def test_json_that_is_none_is_a_value_error():
    for text in ("{", "NaN", "[" * 100_000):
        with pytest.raises(ValueError):
            Json.loads(text)
