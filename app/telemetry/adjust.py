"""What is sloppy but clear in a batch, made what the schema takes: what only describes an event never costs it. Pure.

One row a field. A rule takes a value that is not null and gives None where it is to be left as it is, right or wrong, else what to
take in its place (None: absent) and a sentence for the answer's `adjusted`. What an event is (`type`, `name`, `app`, an
`eventId` that is not empty, the size of its `props`) is not adjusted: there the schema decides.
"""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from app.json_values import MAX_INT64, MIN_INT64, epoch_unit, is_number, is_timestamp, is_whole_number, parse_timestamp, to_ms
from app.telemetry.fields import BEYOND_64_BITS, LONG, MAX_PROPS_BYTES, MAX_USER_BYTES, SHORT, why_not_kept

_NUMBER = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,9})?")  # as many digits as nanoseconds have
_NAMED_UTC = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]{5,18}) ?(?:UTC|GMT)")
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2,8},? .*\d{2}:\d{2}:\d{2}.*")  # RFC 9110, section 5.6.7


class Adjusted(NamedTuple):
    value: Any
    message: str


Rule = Callable[[Any], Adjusted | None]
EMPTY = Adjusted(None, "Empty: taken as absent.")


def adjusted(sent: dict[str, Any], rules: dict[str, Rule], path: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    """`sent`, or a copy with what was adjusted; `rows` gets a `{path, message}` for each."""
    changes = {}
    for name, rule in rules.items():
        value = sent.get(name)
        if value is not None and (change := rule(value)) is not None:
            changes[name] = change.value
            rows.append({"path": f"{path}{name}", "message": change.message})
    return {**sent, **changes} if changes else sent


def not_empty(value: Any) -> Adjusted | None:
    return EMPTY if value == "" else None


def text(longest: int, *, is_identifier: bool = False) -> Rule:
    """A whole number is an identifier as it is."""

    def rule(value: Any) -> Adjusted | None:
        if isinstance(value, str):
            if len(value) > longest:
                return Adjusted(value[:longest], f"Longer than {longest} characters: cut.")
            return not_empty(value)
        if not is_number(value):
            return Adjusted(None, "Not a text: taken as absent.")
        if is_identifier and is_whole_number(value):
            return None
        return Adjusted(_digits(value)[:longest], "A number: taken as text.")

    return rule


def _digits(value: float) -> str:
    """As JavaScript writes it: 5 and not 5.0."""
    return str(int(value)) if value == int(value) else str(value)


def user(value: Any) -> Adjusted | None:
    if not isinstance(value, dict):
        return EMPTY if value in ("", []) else Adjusted(None, "Not an object: taken as absent.")
    change, reason = None, why_not_kept(value, MAX_USER_BYTES)
    if reason == BEYOND_64_BITS:
        change = _as_doubles(value)
        reason = why_not_kept(change.value, MAX_USER_BYTES)
    return change if reason is None else Adjusted(None, f"{reason} Taken as absent.")


def props(value: Any) -> Adjusted | None:
    if value == "":
        return EMPTY
    if value == []:
        return Adjusted({}, "An empty list: taken as an empty object.")  # as PHP writes it
    return _as_doubles(value) if isinstance(value, dict) and why_not_kept(value, MAX_PROPS_BYTES) == BEYOND_64_BITS else None


def _as_doubles(value: dict[str, Any]) -> Adjusted:
    """Whole numbers beyond 64 bits are doubles in JavaScript, and where JSON is decoded from 2^64 on."""
    return Adjusted(_with_doubles(value), "A whole number beyond 64 bits: taken as a double.")


def _with_doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_doubles(item) for item in value]
    return float(value) if isinstance(value, int) and not MIN_INT64 <= value <= MAX_INT64 else value


def moment(value: Any) -> Adjusted | None:
    """Another unit, a number as text, spaces around it, UTC by its name, or the date of an HTTP header."""
    if isinstance(value, str):
        return _from_text(value) if parse_timestamp(value) is None else None
    if (unit := epoch_unit(value)) is None:
        return None
    return Adjusted(unit.to_ms(value), f"Epoch {unit.name}: taken as milliseconds.")


def _from_text(value: str) -> Adjusted | None:
    text = value.strip()
    if text == "":
        return EMPTY
    if _NUMBER.fullmatch(text):
        number = float(text) if "." in text else int(text)
        return moment(number) or _if_in_range(int(number), "Digits as text: taken as epoch milliseconds.")
    iso = named[1] if (named := _NAMED_UTC.fullmatch(text)) else text
    if (ms := parse_timestamp(iso)) is not None:
        return Adjusted(ms, "Not quite ISO 8601: taken as epoch milliseconds.")
    if not _HTTP_DATE.fullmatch(text):
        return None
    try:
        return _if_in_range(to_ms(parsedate_to_datetime(text)), "The date of an HTTP header: taken as epoch milliseconds.")
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _if_in_range(ms: int, message: str) -> Adjusted | None:
    return Adjusted(ms, message) if is_timestamp(ms) else None


def sent_at(value: Any) -> Adjusted | None:
    """It only serves to correct clocks, so whatever it is, the batch is read."""
    change = moment(value)
    if change is None and parse_timestamp(value) is None:
        return Adjusted(None, "Not a time: taken as absent.")
    return change


OF_BOTH: dict[str, Rule] = {
    "app": not_empty,
    "release": text(SHORT),
    "env": text(SHORT),
    "userId": text(LONG, is_identifier=True),
    "sessionId": text(LONG, is_identifier=True),
    "user": user,
}
OF_ENVELOPE: dict[str, Rule] = {**OF_BOTH, "sentAt": sent_at}
OF_EVENT: dict[str, Rule] = {**OF_BOTH, "ts": moment, "props": props, "eventId": not_empty}
