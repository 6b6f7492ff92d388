"""Who may listen to a topic and who may speak on it: a decision about an Identity and a name, nothing else.

A `service` speaks everywhere and listens like anybody else: the token of a backend that only announces things must not
open every user's private topic to whoever finds it.
"""

from app.identity.identity import Identity
from app.realtime.topics import matches

OPEN_TOPICS = ("notice:*", "flags")


def may_connect(identity: Identity) -> bool:
    """A write key is public by nature and names nobody, so there is nobody to connect."""
    return not identity.is_write_key


def may_subscribe(identity: Identity, topic: str) -> bool:
    if not may_connect(identity):
        return False
    return identity.is_admin or topic == f"user:{identity.user_id}" or _any_matches((*OPEN_TOPICS, *identity.subscribe_to), topic)


def may_publish(identity: Identity, topic: str) -> bool:
    return identity.is_service or _any_matches(identity.publish_to, topic)


def _any_matches(patterns: tuple[str, ...], topic: str) -> bool:
    return any(matches(pattern, topic) for pattern in patterns)
