"""The link over Engine.IO's queue."""

from app.realtime.log import Message
from app.realtime.transport.outbox import Outbox
from app.realtime.transport.packets import Batch, event_frame
from app.realtime.transport.safe_link import SafeLink


class House:
    """A link to an outbox that may hold 2000 bytes, and a client that takes what the test says."""

    def __init__(self):
        self.outbox, self.told = Outbox(10_000), []
        self.link = SafeLink(self.outbox, 2000, lambda: self.told.append("blocked"), lambda: self.told.append("writable"))

    def take(self, count):
        for _ in range(count):
            self.outbox.get(block=False)
            self.outbox.note_written()


def batch(*seqs):
    return Batch([event_frame(Message("t", "e", seq, "m", 0, b'"' + b"x" * 100 + b'"')) for seq in seqs])


def test_each_packet_is_queued_in_order_as_one_message_of_engine_io():
    house, written = House(), batch(1, 2)
    house.link.write(written)
    packets = [house.outbox.get(block=False) for _ in range(2)]
    assert [packet.encode() for packet in packets] == [f"4{text}" for text in written.packets]


def test_clients_share_the_packets_of_a_batch():
    houses, written = (House(), House()), batch(1)
    for house in houses:
        house.link.write(written)
    first, second = (house.outbox.get(block=False) for house in houses)
    assert first is second


def test_a_link_over_half_of_its_limit_is_blocked_until_a_quarter_is_left_and_says_each_once():
    house = House()
    house.link.write(batch(1))
    assert not house.link.is_blocked
    house.link.write(batch(2, 3, 4, 5))
    house.link.write(batch(6))
    assert house.link.is_blocked and house.told == ["blocked"]
    assert house.link.queued_bytes > 1000
    house.take(3)
    assert house.link.is_blocked
    house.take(2)
    assert not house.link.is_blocked and house.told == ["blocked", "writable"]
    assert house.link.progress == 5
