"""What every topic log promises, proved over each twin, so that the humble one can be believed and the real one trusted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.realtime.log import Appended
from app.realtime.log.memory import MemoryTopicLog, Retention
from tests.apps import NOW
from tests.unit.realtime.simulation.promises import check_who_holds_what, no_lighter_user_loses_a_topic

LIMITS = {"max_messages": 5, "max_bytes": 100_000, "max_topics": 3}


@pytest.fixture(params=["memory"])
def make_log(request):
    def make(**changes):
        return MemoryTopicLog(**{**LIMITS, **changes})

    return make


@pytest.fixture
def log(make_log):
    return make_log()


def append(log, topic="t", *payloads, **options):
    return [log.append(topic, payload, NOW, **options) for payload in payloads or [b"1"]][-1]


def seqs(page):
    return [message.seq for message in page.messages]


def test_seq_counts_from_one_without_a_hole_in_each_topic(log):
    assert [append(log, "a").seq, append(log, "a").seq, append(log, "b").seq, append(log, "a").seq] == [1, 2, 1, 3]


def test_a_message_is_read_as_it_was_appended(log):
    appended = append(log, "t", b'{"a":[1,null]}', id="m1", user="u")
    (message,) = log.read("t", 0, 10).messages
    assert (message.topic, message.seq, message.epoch) == ("t", appended.seq, appended.epoch)
    assert (message.id, message.ts, message.payload) == ("m1", NOW, b'{"a":[1,null]}')


def test_a_message_without_an_id_gets_one_of_its_own(log):
    append(log, "t", b"1", b"2")
    first, second = log.read("t", 0, 10).messages
    assert first.id and second.id and first.id != second.id


def test_reading_begins_after_the_position_and_ends_at_the_limit(log):
    append(log, "t", b"1", b"2", b"3", b"4")
    assert seqs(log.read("t", 1, 2)) == [2, 3]
    assert seqs(log.read("t", 4, 2)) == []
    assert seqs(log.read("t", 99, 2)) == []


def test_the_same_id_of_the_same_user_gets_the_first_answer_and_is_not_appended(log):
    first = append(log, "t", b"1", id="m", user="u")
    append(log, "t", b"2")
    assert append(log, "t", b"3", id="m", user="u") == Appended(first.seq, first.epoch, duplicate=True)
    assert log.head("t").seq == 2


@pytest.mark.parametrize("other", [{"topic": "t2"}, {"user": "other"}, {"user": None}, {"id": "m2"}])
def test_an_id_counts_for_its_topic_and_its_user_only(log, other):
    append(log, "t", b"1", id="m", user="u")
    options = {"id": "m", "user": "u", **other}
    assert not log.append(options.pop("topic", "t"), b"2", NOW, **options).duplicate


def test_over_its_count_a_topic_loses_the_oldest_and_says_which_are_gone(log):
    append(log, "t", *[b"1"] * 8)
    page = log.read("t", 1, 10)
    assert seqs(page) == [4, 5, 6, 7, 8]
    assert page.gone == (2, 3)
    assert log.read("t", 3, 10).gone is None
    assert log.head("t").first == 4


def test_over_its_bytes_a_topic_loses_the_oldest_and_keeps_the_newest_always(make_log):
    log = make_log(max_bytes=2048)
    append(log, "t", *[b"x" * 700] * 4)
    assert seqs(log.read("t", 0, 10)) == [3, 4]
    append(log, "t", b"x" * 5000)
    assert seqs(log.read("t", 0, 10)) == [5]


def test_a_topic_that_nobody_published_to_begins_in_the_epoch_that_its_head_says(log):
    head = log.head("t")
    assert (head.seq, head.first) == (0, 1)
    assert (log.read("t", 0, 10).epoch, log.read("t", 0, 10).messages) == (head.epoch, [])
    assert append(log, "t").epoch == head.epoch


def test_asking_for_a_topic_does_not_make_one(log):
    append(log, "a")
    for number in range(10):
        log.head(f"unknown:{number}")
        log.read(f"unknown:{number}", 0, 10)
    assert log.head("a").seq == 1


def test_every_message_is_announced_once_in_order(log):
    heard = []
    log.listen(lambda message: heard.append((message.topic, message.seq)))
    append(log, "t", b"1", id="m")
    append(log, "t", b"1", id="m")
    append(log, "u")
    append(log, "t")
    assert heard == [("t", 1), ("u", 1), ("t", 2)]


def test_a_message_that_is_appended_while_another_is_announced_is_announced_after_it(log):
    heard = []

    def listener(message):
        if message.seq == 1:
            append(log, "t")
        heard.append(message.seq)

    log.listen(listener)
    append(log, "t")
    assert heard == [1, 2]


def test_a_message_can_be_read_when_it_is_announced(log):
    read = []
    log.listen(lambda message: read.append(seqs(log.read("t", 0, 10))))
    append(log, "t", b"1", b"2")
    assert read == [[1], [1, 2]]


def test_two_logs_never_share_an_epoch(make_log):
    assert append(make_log()).epoch != append(make_log()).epoch


def test_over_its_age_a_topic_loses_the_oldest_and_goes_on_counting(make_log):
    log = make_log(max_age_ms=1000)
    append(log, "t", b"1", b"2")
    log.append("t", b"3", NOW + 900)
    log.tidy(NOW + 1000)
    page = log.read("t", 0, 10)
    assert (seqs(page), page.gone) == ([3], (1, 2))
    log.tidy(NOW + 1900)
    head = log.head("t")
    assert (head.seq, head.first, log.read("t", 3, 10).messages) == (3, 4, [])
    assert log.append("t", b"4", NOW + 2000).seq == 4


def test_a_topic_that_nobody_used_for_twice_its_age_is_forgotten_and_comes_back_in_another_epoch(make_log):
    log = make_log(max_age_ms=1000)
    before = append(log, "t")
    log.tidy(NOW + 1999)
    assert log.head("t").epoch == before.epoch
    log.tidy(NOW + 2000)
    assert (log.head("t").seq, log.head("t").epoch != before.epoch) == (0, True)


def test_some_topics_may_have_limits_of_their_own(make_log):
    log = make_log(retention=[("chat:*", Retention(2, 100_000)), ("chat:big", Retention(4, 100_000))])
    for topic, kept in (("chat:1", 2), ("chat:big", 2), ("other", 5)):
        append(log, topic, *[b"1"] * 8)
        assert len(log.read(topic, 0, 10).messages) == kept


def publish(log, user, *topics, payload=b"1", **options):
    """`user` in capitals is the server, a service or an admin."""
    return [log.append(topic, payload, NOW, user=user, is_trusted=user.isupper(), **options) for topic in topics][-1]


@pytest.mark.parametrize("attackers", [["mallory"], ["mallory", "eve"]])
def test_a_user_with_thousands_of_topics_loses_its_own_and_takes_none_of_the_server_or_of_others(make_log, attackers):
    log = make_log(max_topics=100)
    places = {topic: publish(log, user, topic, topic) for user, topic in (("SERVER", "notice:global"), ("ann", "ann:1"), ("bob", "bob:1"))}
    for round_ in range(10):
        for number in range(50):
            publish(log, attackers[number % len(attackers)], f"new:{round_}:{number}")
    for topic, place in places.items():
        head = log.head(topic)
        assert (head.epoch, head.seq, seqs(log.read(topic, 0, 10))) == (place.epoch, 2, [1, 2])
    assert log.counts()["topics"] <= 112


def test_where_services_fill_the_log_users_have_a_reserve_and_the_services_keep_theirs(make_log):
    log = make_log(max_topics=80)
    publish(log, "SERVICE", *[f"s:{number}" for number in range(80)])
    for number in range(50):
        publish(log, "ann", f"ann:{number}")
    assert all(log.head(f"s:{number}").seq for number in range(80))
    assert [number for number in range(50) if log.head(f"ann:{number}").seq] == list(range(40, 50))


def test_a_service_with_thousands_of_topics_takes_none_of_another_service(make_log):
    log = make_log(max_topics=20)
    publish(log, "SERVER", "flags")
    publish(log, "SERVICE", *[f"s:{number}" for number in range(100)])
    assert log.head("flags").seq == 1


def test_a_user_with_many_bytes_loses_its_own(make_log):
    log = make_log(max_topics=1000, max_total_bytes=100_000)
    publish(log, "SERVER", "notice:global"), publish(log, "ann", "ann:1")
    publish(log, "mallory", *[f"new:{number}" for number in range(300)], payload=b"x" * 4000)
    assert [log.head(topic).seq for topic in ("notice:global", "ann:1", "new:0", "new:299")] == [1, 1, 0, 1]
    assert log.counts()["bytes"] <= 100_000


def test_what_a_user_says_in_topics_of_others_counts_against_that_user(make_log):
    """Else filling a victim's topics would make the victim the one who holds most."""
    log = make_log(max_messages=100, max_topics=1000, max_total_bytes=100_000)
    publish(log, "SERVER", "notice:global"), publish(log, "ann", *[f"ann:{number}" for number in range(20)])
    for _ in range(5):
        publish(log, "mallory", *[f"ann:{number}" for number in range(10)], payload=b"x" * 4000)
    assert log.head("notice:global").seq == 1
    assert [number for number in range(20) if log.head(f"ann:{number}").seq == 0] == []
    assert all(seqs(log.read(f"ann:{number}", 0, 10)) == [1] for number in range(10, 20))
    assert log.counts()["bytes"] <= 100_000


def test_a_topic_that_a_user_began_and_the_server_speaks_on_is_the_servers(make_log):
    log = make_log(max_topics=4)
    publish(log, "mallory", "notice:global"), publish(log, "SERVER", "notice:global")
    publish(log, "mallory", *[f"new:{number}" for number in range(10)])
    assert log.head("notice:global").seq == 2


@pytest.mark.parametrize(("first", "victim"), [("mallory", "ann"), ("MALLORY", "SERVICE")])
def test_the_first_publisher_of_a_topic_gives_it_up_to_another_with_messages_in_it(make_log, first, victim):
    log = make_log(max_messages=100, max_topics=20)
    publish(log, first, "chat:1")
    place = publish(log, victim, *["chat:1"] * 10)
    retried = publish(log, victim, "chat:1", id="m")
    publish(log, first, *[f"new:{number}" for number in range(100)])
    assert publish(log, victim, "chat:1") == Appended(place.seq + 2, place.epoch)
    assert publish(log, victim, "chat:1", id="m") == Appended(retried.seq, place.epoch, duplicate=True)
    assert seqs(log.read("chat:1", 0, 100)) == list(range(1, 14))
    assert log.counts()["topics"] <= 22


def test_topics_that_all_hold_messages_of_another_pass_to_that_user_until_both_hold_as_many(make_log):
    log = make_log(max_messages=100, max_topics=20)
    for number in range(18):
        publish(log, "mallory", f"chat:{number}"), publish(log, "ann", f"chat:{number}")
    publish(log, "mallory", *[f"new:{number}" for number in range(100)])
    assert [log.head(f"chat:{number}").seq for number in range(18)] == [2] * 18


def test_over_its_bytes_the_first_publisher_of_a_topic_gives_it_up_too(make_log):
    log = make_log(max_messages=100, max_topics=1000, max_total_bytes=100_000)
    publish(log, "mallory", "chat:1")
    place = publish(log, "ann", *["chat:1"] * 10)
    publish(log, "mallory", *[f"new:{number}" for number in range(300)], payload=b"x" * 4000)
    assert (log.head("chat:1").epoch, seqs(log.read("chat:1", 0, 100))) == (place.epoch, list(range(1, 12)))
    assert log.counts()["bytes"] <= 100_000


@pytest.mark.parametrize("limit", [{"max_topics": 6}, {"max_topics": 100, "max_total_bytes": 4000}])
@settings(max_examples=200, deadline=None)
@given(published=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 11), st.sampled_from([0, 300])), max_size=80))
def test_whatever_users_publish_a_topic_is_forgotten_only_with_messages_of_users_that_hold_as_many(limit, published):
    log = MemoryTopicLog(**{**LIMITS, "max_messages": 50, **limit})
    for user, topic, size in published:
        with no_lighter_user_loses_a_topic(log, user):
            publish(log, user, f"t{topic}", payload=b"x" * size)
        assert log.counts()["bytes"] == sum(entry.bytes for entry in log._topics.values())
        check_who_holds_what(log)


@pytest.mark.parametrize("victim", ["ann", "SERVICE"])
def test_a_user_with_thousands_of_ids_takes_none_of_others(make_log, victim):
    log = make_log(max_ids=1000)
    first = publish(log, victim, "t", id="m")
    for number in range(3000):
        publish(log, "mallory", "t", id=str(number))
    assert publish(log, victim, "t", id="m") == Appended(first.seq, first.epoch, duplicate=True)
    assert publish(log, "mallory", "t", id="2999").duplicate
    assert not publish(log, "mallory", "t", id="0").duplicate
    assert log.counts()["ids"] <= 1000


def test_an_id_is_known_again_when_its_user_has_another_role(log):
    first = log.append("t", b"1", NOW, "m", "billing", is_trusted=True)
    assert log.append("t", b"1", NOW, "m", "billing", is_trusted=False) == Appended(first.seq, first.epoch, duplicate=True)


def test_nothing_is_remembered_of_publishers_that_hold_nothing(make_log):
    log = make_log(max_topics=10, max_ids=10, max_age_ms=1000)
    for number in range(500):
        publish(log, f"user {number}", "shared", f"own:{number}", id="m")
    assert log.counts()["publishers"] <= 5 + 11 + 11
    log.tidy(NOW + 5000)
    assert log.counts()["topics"] == log.counts()["bytes"] == 0
    assert log.counts()["publishers"] == log.counts()["ids"]
