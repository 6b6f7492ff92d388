"""Which identity may connect, subscribe to a topic, or publish to it. Pure.

The role `service` may publish to every topic but subscribes with the permissions of an ordinary user. A leaked token of a backend that
only publishes must not open the private topics of all users.
"""

from app.identity.identity import Identity
from app.realtime.topics import matches

OPEN_TOPICS = ("notice:*", "flags")


def may_connect(identity: Identity) -> bool:
    """Whether the identity may connect. A write key may not: it is public and names no user."""
    return not identity.is_write_key


def may_subscribe(identity: Identity, topic: str) -> bool:
    """Whether the identity may subscribe to the topic."""
    if not may_connect(identity):
        return False
    return identity.is_admin or topic == f"user:{identity.user_id}" or _any_matches((*OPEN_TOPICS, *identity.subscribe_to), topic)


def may_publish(identity: Identity, topic: str) -> bool:
    """Whether the identity may publish to the topic."""
    return identity.is_service or _any_matches(identity.publish_to, topic)


def _any_matches(patterns: tuple[str, ...], topic: str) -> bool:
    return any(matches(pattern, topic) for pattern in patterns)
