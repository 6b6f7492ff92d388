"""What is known of a caller: one immutable value, made from the claims of a token or from a write key."""

from dataclasses import dataclass
from typing import Any

from app.errors import ApiError
from app.json_values import is_number

MAX_ID_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """`kind` is `user` (a token) or `write_key`. `expires_at` is in epoch milliseconds, None for a write key. `apps` are the only
    applications that it may name, None where it may name any.

    `subscribe_to` and `publish_to` are patterns: a topic, or a prefix ending in `*`.
    """

    kind: str
    user_id: str | None = None
    roles: tuple[str, ...] = ()
    subscribe_to: tuple[str, ...] = ()
    publish_to: tuple[str, ...] = ()
    expires_at: int | None = None
    write_key_name: str | None = None
    apps: frozenset[str] | None = None

    def may_name(self, app: str) -> bool:
        return self.apps is None or app in self.apps

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def is_service(self) -> bool:
        return "service" in self.roles or self.is_admin

    @property
    def is_write_key(self) -> bool:
        return self.kind == "write_key"


def identity_from_claims(claims: dict[str, Any]) -> Identity:
    """`{sub, exp, role?: str | [str], topics?: {sub?: [pattern], pub?: [pattern]}}` -> Identity, or `unauthorized`. A `sub` that is
    a whole number, as many a database's ids are, is its decimal text."""
    subject, expires, role, topics = claims.get("sub"), claims.get("exp"), claims.get("role"), claims.get("topics")
    if type(subject) is int and abs(subject) < 10 ** (MAX_ID_LENGTH - 1):
        subject = str(subject)
    roles = [role] if isinstance(role, str) and role else [] if role in (None, "") else role
    topics = {} if topics is None else topics
    ok = is_time(expires) and _is_words([subject]) and _is_words(roles) and isinstance(topics, dict)
    patterns = [[] if topics.get(name) is None else topics[name] for name in ("sub", "pub")] if ok else []
    if not ok or not all(_is_words(words) for words in patterns):
        raise ApiError("unauthorized", "The token's claims have the wrong shape.")
    return Identity(
        kind="user",
        user_id=subject,
        roles=tuple(roles),
        subscribe_to=tuple(patterns[0]),
        publish_to=tuple(patterns[1]),
        expires_at=int(expires * 1000),
    )


def is_time(value: Any) -> bool:
    """Seconds since 1970. A time in milliseconds, a common mistake, would be a token that never expires."""
    return is_number(value) and 0 <= value < 1e11


def _is_words(value: Any) -> bool:
    """Printable, because they become names of rooms, keys in Redis and fields of a log line."""
    return isinstance(value, list) and all(
        isinstance(item, str) and 0 < len(item) <= MAX_ID_LENGTH and item.isprintable() for item in value
    )
