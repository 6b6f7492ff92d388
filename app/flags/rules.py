"""The rules a flag may have, as a table: a newcomer adds a row here and a field in `schemas`, and no branch anywhere.

A rule gets the value that the flag gives it, the flag's key and the context, and says whether it holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.flags.murmur3 import murmur3_32

# The words of OpenFeature, as far as OFREP 0.3.0 allows them in an answer. A rule that refuses gives its own word, too:
# both protocols mean by it how the value was found, not that the value is true.
STATIC, TARGETING_MATCH, SPLIT, DISABLED, UNKNOWN = "STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Context:
    """For whom a flag is asked: what a rule may look at."""

    user_id: str | None = None
    session_id: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def sticky_id(self) -> str | None:
        """Whom a rollout counts: the user, else the session."""
        return self.user_id or self.session_id or None


def bucket(key: str, sticky_id: str) -> int:
    """1 to 100, by Unleash's formula, so that a rollout moved from there keeps its people.

    https://docs.getunleash.io/concepts/stickiness: murmur3 of "{groupId}:{id}" modulo 100, plus 1.
    """
    return murmur3_32(f"{key}:{sticky_id}".encode("utf-8", "surrogatepass")) % 100 + 1


def _has_a_role(roles: list[str], key: str, context: Context) -> bool:
    return any(role in roles for role in context.roles)


def _is_in_percent(percent: float, key: str, context: Context) -> bool:
    """Somebody without an id cannot be given the same answer twice, so only a full rollout reaches them.

    There are a hundred buckets: of 12.5 percent only the 12 whole ones count.
    """
    if percent >= 100:
        return True
    return context.sticky_id is not None and bucket(key, context.sticky_id) <= percent


@dataclass(frozen=True, slots=True)
class Rule:
    holds: Callable[[Any, str, Context], bool]
    reason: str


RULES: dict[str, Rule] = {
    "role": Rule(_has_a_role, TARGETING_MATCH),
    "percent": Rule(_is_in_percent, SPLIT),
}
