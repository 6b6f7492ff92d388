"""What the server promises beside what is on the wire: nothing silent, nothing without a limit, nothing left behind."""

from tests.unit.realtime.simulation.client import TOPICS
from tests.unit.realtime.simulation.wire import FRAME_BYTES


def check_nothing_was_elsewhere(world, topic, epoch, since):
    """Who resumes in an epoch without being told has missed nothing that was said in another one."""
    if since:
        history = world.history[topic]
        begin = history.index((epoch, since)) if (epoch, since) in history else len(history)
        assert {place[0] for place in history[begin:]} <= {epoch}, f"{topic} went on elsewhere after {since} of {epoch}"


def check_bounds(world):
    subscriptions = [subscription for connection in world.hub.members for subscription in connection.subscriptions.values()]
    merges = len(TOPICS)  # those of topics that everybody has just left, until they are due
    assert len(world.hub.timers) <= 3 * len(world.hub.members) + len(subscriptions) + merges
    for subscription in subscriptions:
        if not subscription.unacked:
            assert subscription.unacked_bytes == 0
            continue
        assert len(subscription.unacked) <= world.rules.ack_window_messages
        assert subscription.unacked_bytes == sum(subscription.unacked.values())
        assert subscription.unacked_bytes < world.rules.ack_window_bytes + 16 * FRAME_BYTES


def check_that_nothing_is_left(world):
    """When all have gone, the memory of the server holds the log within its limits and nothing of any client."""
    for client in world.clients:
        world.wire.links.pop(client.connection_id)
        world.hub.disconnect(client.connection_id)
    world.hub.tick(world.clock + 100_000)
    delivery, log = world.hub._delivery, world.log
    assert set(world.hub.counts().values()) == {0}, world.hub.counts()
    assert len(world.hub.timers) == 0 and not world.hub.timers._heap, world.hub.timers._deadlines
    assert not delivery._audiences and not delivery._pump.has_work and not len(delivery._room) and not delivery._room._progress
    assert len(log._topics) <= world.limits["max_topics"] and len(log._answers) <= world.limits["max_ids"]
    assert log._bytes == sum(entry.bytes for entry in log._topics.values()) <= world.limits["max_topics"] * 101_000
    assert all(len(entry.messages) <= world.limits["max_messages"] for entry in log._topics.values())
