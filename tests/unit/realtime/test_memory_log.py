"""What is true of the log in memory alone: what it forgets when it is full."""

from app.realtime.log.memory import MemoryTopicLog
from tests.apps import NOW


def make_log(**changes):
    return MemoryTopicLog(**{"max_messages": 5, "max_bytes": 100_000, "max_topics": 3, **changes})


def append(log, *topics, payload=b"1", **options):
    return [log.append(topic, payload, NOW, **options) for topic in topics][-1]


def test_over_the_number_of_topics_the_one_published_to_least_recently_is_forgotten():
    log = make_log(max_topics=3)
    append(log, "a", "b", "c", "a", "b", "d")
    assert [log.head(topic).seq for topic in ("a", "b", "c", "d")] == [2, 2, 0, 1]


def test_a_forgotten_topic_comes_back_in_another_epoch_and_the_others_keep_theirs():
    log = make_log(max_topics=2)
    forgotten, kept = append(log, "a"), append(log, "b")
    append(log, "c")
    back = append(log, "a")
    assert back.seq == 1
    assert back.epoch != forgotten.epoch
    assert kept.epoch == forgotten.epoch  # both began before anything was forgotten


def test_a_topic_that_is_forgotten_again_and_again_never_repeats_an_epoch():
    log = make_log(max_topics=1)
    epochs = [(append(log, "a").epoch, append(log, "b").epoch) for _ in range(10)]
    assert len({a for a, _ in epochs}) == len({b for _, b in epochs}) == 10


def test_all_topics_together_stay_within_their_bytes():
    log = make_log(max_topics=100, max_total_bytes=4096)
    for number in range(20):
        append(log, f"t{number}", payload=b"x" * 1000)
    assert [number for number in range(20) if log.head(f"t{number}").seq] == [17, 18, 19]


def test_empty_payloads_count_too():
    log = make_log(max_messages=10_000, max_bytes=10_000)
    append(log, *["t"] * 1000, payload=b"")
    assert len(log.read("t", 0, 10_000).messages) < 50


def test_the_ids_that_make_a_retry_harmless_are_bounded_and_the_oldest_is_forgotten_first():
    log = make_log(max_ids=2)
    for id in ("1", "2", "3"):
        append(log, "t", id=id)
    assert append(log, "t", id="3").duplicate
    assert append(log, "t", id="2").duplicate
    assert not append(log, "t", id="1").duplicate


def test_a_repeated_message_gets_its_first_answer_even_when_its_topic_was_forgotten():
    log = make_log(max_topics=1)
    first = append(log, "a", id="1")
    append(log, "b")
    again = append(log, "a", id="1")
    assert again.duplicate and (again.seq, again.epoch) == (first.seq, first.epoch)
