"""Decides a flag for a context with the table RULES. A new rule is a row there and a field in `schemas.RulesSchema`.

Everything here is a pure function of the flag, the context and the time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.flags.flag import Flag
from app.flags.murmur3 import murmur3_32

# Reasons of OpenFeature that OFREP 0.3.0 allows in an answer. A reason names the rule that decided, whether the flag is
# on or off.
STATIC, TARGETING_MATCH, SPLIT, DISABLED, UNKNOWN = "STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Context:
    """The caller that a flag is evaluated for: all that a rule may read."""

    user_id: str | None = None
    session_id: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def sticky_id(self) -> str | None:
        """The id that a percentage hashes: the user's, else the session's."""
        return self.user_id or self.session_id or None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a flag is on for a context, and one of the reasons above."""

    on: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds` takes the rule's value in the flag, the key of the flag and the context."""

    holds: Callable[[Any, str, Context], bool]
    reason: str


def evaluate(flag: Flag, context: Context, now: int) -> Decision:
    """Decide `flag`: all of its rules must hold. The reason is that of the first rule that fails, else of the last rule.

    A rule that is not in RULES never holds: a rule that a newer version wrote must not turn the flag on for all callers.
    """
    if not flag.enabled or not flag.is_in_window(now):
        return Decision(False, DISABLED)
    if not flag.rules.keys() <= RULES.keys():
        return Decision(False, UNKNOWN)
    reason = STATIC
    for name, rule in RULES.items():
        if name in flag.rules:
            reason = rule.reason
            if not rule.holds(flag.rules[name], flag.key, context):
                return Decision(False, reason)
    return Decision(True, reason)


def bucket(key: str, sticky_id: str) -> int:
    """Return 1 to 100, by Unleash's formula, so that a rollout moved from Unleash keeps its users.

    https://docs.getunleash.io/concepts/stickiness: murmur3 of "{groupId}:{id}" modulo 100, plus 1.
    """
    return murmur3_32(f"{key}:{sticky_id}".encode("utf-8", "surrogatepass")) % 100 + 1


def _has_role(roles: list[str], key: str, context: Context) -> bool:
    return any(role in roles for role in context.roles)


def _is_in_percent(percent: float, key: str, context: Context) -> bool:
    """Buckets are whole, so 12.5 percent is 12. A caller without an id has no bucket and is only in 100 percent."""
    if percent >= 100:
        return True
    return context.sticky_id is not None and bucket(key, context.sticky_id) <= percent


RULES: dict[str, Rule] = {
    "role": Rule(_has_role, TARGETING_MATCH),
    "percent": Rule(_is_in_percent, SPLIT),
}
