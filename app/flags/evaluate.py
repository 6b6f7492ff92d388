"""The decision, as a pure function: a flag, a context and the time in, on or off and why out."""

from dataclasses import dataclass

from app.flags.flag import Flag
from app.flags.rules import DISABLED, RULES, STATIC, UNKNOWN, Context


@dataclass(frozen=True, slots=True)
class Decision:
    on: bool
    reason: str


def evaluate(flag: Flag, context: Context, now: int) -> Decision:
    """All given rules must hold. The reason is that of the first rule that refuses, else of the last one that was asked.

    A rule that this version does not know never holds: what a newer one wrote must not open a flag to everybody.
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
