"""A cursor into a topic's log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.realtime.log import Head, Message
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


def message(seq, epoch="e"):
    return Message("t", epoch, seq, "m", 0, b"1")


def test_the_next_message_is_the_one_right_after_the_cursor_in_the_same_epoch():
    subscription = Subscription("t", "e", sent=4, acked=4)
    assert [subscription.is_next(message(seq)) for seq in (4, 5, 6)] == [False, True, False]
    assert [subscription.has_had(message(seq)) for seq in (4, 5, 6)] == [True, False, False]
    assert not subscription.is_next(message(5, "f")) and not subscription.has_had(message(1, "f"))


def test_moving_the_cursor_forgets_what_was_acknowledged():
    subscription = Subscription("t", "e", sent=9, acked=0)
    subscription.acknowledge_one(5)
    subscription.move_to("f", 2)
    assert (subscription.epoch, subscription.sent, subscription.acked, subscription.acked_apart) == ("f", 2, 2, set())


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=30))
def test_acknowledged_is_the_longest_beginning_without_a_hole(acks):
    subscription, known = Subscription("t", "e", sent=12, acked=0), set()
    for is_cumulative, seq in acks:
        if is_cumulative:
            subscription.acknowledge(seq)
            known |= set(range(1, seq + 1))
        elif seq > subscription.acked:
            subscription.acknowledge_one(seq)
            known.add(seq)
        expected = next(seq for seq in range(13) if seq + 1 not in known)
        assert subscription.acked == expected
        assert subscription.acked_apart == {seq for seq in known if seq > expected}
