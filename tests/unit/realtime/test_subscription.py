"""A cursor into a topic's log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.realtime.log import Head, Message
from app.realtime.options import Options
from app.realtime.subscription import Resumption, Subscription, resume_from


@pytest.mark.parametrize(
    ("since", "epoch", "expected"),
    [
        (10, "e", Resumption(10)),
        (4, "e", Resumption(4)),
        (3, "e", Resumption(4, "history_gap", (4, 4))),
        (0, None, Resumption(4, "history_gap", (1, 4))),
        (11, "e", Resumption(4, "epoch_changed")),
        (10, "f", Resumption(4, "epoch_changed")),
    ],
)
def test_where_a_subscription_begins(since, epoch, expected):
    assert resume_from(since, epoch, Head(seq=10, epoch="e", first=5)) == expected


def test_resuming_on_a_topic_without_messages_begins_at_nothing():
    assert resume_from(0, None, Head(seq=0, epoch="e", first=1)) == Resumption(0)


def message(seq, epoch="e", payload=b"1"):
    return Message("t", epoch, seq, "m", 0, payload)


def sent(count, **options):
    """A subscription that got the messages 1 to `count`."""
    subscription = Subscription("c", "t", "e", 0, **options)
    for seq in range(1, count + 1):
        subscription.note_sent(message(seq))
    return subscription


def test_the_next_message_is_the_one_right_after_the_cursor_in_the_same_epoch():
    subscription = Subscription("c", "t", "e", sent=4)
    assert [subscription.is_next(message(seq)) for seq in (4, 5, 6)] == [False, True, False]
    assert [subscription.has_had(message(seq)) for seq in (4, 5, 6)] == [True, False, False]
    assert not subscription.is_next(message(5, "f")) and not subscription.has_had(message(1, "f"))


def test_moving_the_cursor_forgets_what_was_sent_before():
    subscription = sent(9)
    subscription.rewind()
    subscription.move_to("f", 2)
    assert (subscription.epoch, subscription.sent, subscription.delivered, subscription.acked) == ("f", 2, 2, 2)
    assert (subscription.unacked, subscription.unacked_bytes, subscription.resends) == ({}, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=30))
def test_acknowledged_is_the_longest_beginning_without_a_hole(acks):
    subscription, known = sent(12), set()
    for is_cumulative, seq in acks:
        if is_cumulative:
            subscription.acknowledge(seq)
            known |= set(range(1, seq + 1))
        else:
            subscription.acknowledge_one(seq)
            known.add(seq)
        expected = next(seq for seq in range(13) if seq + 1 not in known)
        assert subscription.acked == expected
        assert set(subscription.unacked) == set(range(1, 13)) - known
        assert subscription.unacked_bytes == sum(subscription.unacked.values())


def test_the_window_closes_by_count_and_by_bytes_and_opens_with_an_acknowledgement():
    options = Options(ack_window_messages=3, ack_window_bytes=5000)
    subscription = sent(2)
    assert subscription.window_left(options) == 1
    subscription.note_sent(message(3))
    assert subscription.window_left(options) == 0
    subscription.acknowledge(2)
    assert subscription.window_left(options) == 2
    subscription.note_sent(message(4, payload=b"x" * 6000))
    assert subscription.window_left(options) == 0
    assert sent(9, ack=False).window_left(options) == 3


def test_a_resend_begins_at_the_oldest_unacknowledged_message_and_counts_until_all_of_it_arrived():
    subscription = sent(5)
    subscription.acknowledge(2)
    subscription.rewind()
    assert (subscription.sent, subscription.delivered, subscription.resends, subscription.is_resending) == (2, 5, 1, True)
    subscription.acknowledge(4)
    assert (subscription.sent, subscription.resends) == (4, 1)
    subscription.acknowledge(5)
    assert (subscription.resends, subscription.is_resending) == (0, False)


def test_giving_up_names_the_span_and_waits_for_nobody_any_more():
    subscription = sent(5)
    subscription.acknowledge(1)
    subscription.rewind()
    assert subscription.give_up() == (2, 5)
    assert (subscription.sent, subscription.acked, subscription.ack, subscription.unacked) == (5, 5, False, {})
