"""What the server promises beside what is on the wire: nothing silent, nothing without a limit, nothing left behind."""

from contextlib import contextmanager

from tests.unit.realtime.simulation.client import TOPICS
from tests.unit.realtime.simulation.wire import FRAME_BYTES


def check_nothing_was_elsewhere(world, topic, epoch, since):
    """Who resumes in an epoch without being told has missed nothing that was said in another one."""
    if since:
        history = world.history[topic]
        begin = history.index((epoch, since)) if (epoch, since) in history else len(history)
        assert {place[0] for place in history[begin:]} <= {epoch}, f"{topic} went on elsewhere after {since} of {epoch}"


@contextmanager
def the_server_loses_nothing_to(world, user, is_trusted):
    """What a user publishes evicts no topic and no id of the server and its services."""

    def held():
        publishers = world.log._publishers._trusted.values()
        topics = {topic: world.log.head(topic).epoch for publisher in publishers for topic in publisher.owned}
        return topics, {key: answer for publisher in publishers for key, answer in publisher.answers.items()}

    before = ({}, {}) if is_trusted else held()
    yield
    after = held()
    assert all(before[kind].items() <= after[kind].items() for kind in (0, 1)), f"{user} took something of the server"


@contextmanager
def no_lighter_user_loses_a_topic(log, user, is_trusted=False):
    """Where a topic is forgotten for what a user publishes, no other user with messages in it holds far less than its owner."""
    before = {name: (entry.epoch, entry.owner, set(entry.guests.values())) for name, entry in log._topics.items()}
    yield
    for name, (epoch, owner, guests) in before.items():
        if is_trusted or owner.is_trusted or log.head(name).epoch == epoch:
            continue
        lighter = [guest.user for guest in guests if guest.user != user and guest.topics.amount + 1 < owner.topics.amount]
        assert not lighter, f"{name} was forgotten with messages of {lighter}"


def check_who_holds_what(log):
    """What each party is counted for is what there is."""
    for publisher in [*log._publishers._users.values(), *log._publishers._trusted.values()]:
        owned = [name for name, entry in log._topics.items() if entry.owner is publisher]
        assert sorted(publisher.owned) == sorted(owned) and publisher.topics.amount == len(owned)
        guest_in = {name: list(entry.guests.values()).count(publisher) for name, entry in log._topics.items()}
        assert publisher.guest_in == {name: count for name, count in guest_in.items() if count}


def check_bounds(world):
    subscriptions = [subscription for connection in world.hub.members for subscription in connection.subscriptions.values()]
    merges = len(TOPICS)  # those of topics that everybody has just left, until they are due
    assert len(world.hub.timers) <= 3 * len(world.hub.members) + len(subscriptions) + merges
    for subscription in subscriptions:
        if not subscription.unacked:
            assert subscription.unacked_bytes == 0
            continue
        assert len(subscription.unacked) <= world.options.ack_window_messages
        assert subscription.unacked_bytes == sum(subscription.unacked.values())
        assert subscription.unacked_bytes < world.options.ack_window_bytes + 16 * FRAME_BYTES


def check_that_nothing_is_left(world):
    """When all have gone, the memory of the server holds the log within its limits and nothing of any client."""
    for client in world.clients:
        world.wire.links.pop(client.connection_id)
        world.hub.disconnect(client.connection_id)
    world.hub.tick(world.clock + 100_000)
    delivery, log = world.hub._delivery, world.log
    assert set(world.hub.counts().values()) == {0}, world.hub.counts()
    assert len(world.hub.timers) == 0 and not world.hub.timers._heap, world.hub.timers._deadlines
    assert not delivery._audiences and not delivery._pump.has_work and not len(delivery._slow) and not delivery._slow._watched
    counts, reserve = log.counts(), world.limits["max_topics"] // 8 + 1
    assert counts["topics"] == len(log._topics) <= world.limits["max_topics"] + reserve
    assert counts["ids"] <= world.limits["max_ids"] * 9 // 8
    assert counts["bytes"] == sum(entry.bytes for entry in log._topics.values()) <= (world.limits["max_topics"] + reserve) * 101_000
    assert counts["publishers"] <= counts["topics"] + counts["ids"]
    assert all(len(entry.messages) <= world.limits["max_messages"] for entry in log._topics.values())
