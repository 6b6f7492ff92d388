"""Reads a batch whose text is no JSON as a whole, so that what is wrong inside one event costs that event and no other, and what is
wrong inside a field that only describes costs that field: a number beyond doubles, a NaN, nesting beyond any reader's, an escape or a
byte that no string may have.

The invariant: where the body and its events have their quotes and brackets in pairs, each event is judged by itself, and an object is
read without the values that cannot be read, unless one of them says what an event is (ESSENTIAL). In any other case the batch, or the
event, is no JSON.
"""

import itertools
import re
from typing import Any, NamedTuple

from app.errors import ApiError
from app.http.json import decode_json, decode_object
from app.serving.fairness import TimeSlice, yield_before_large
from app.telemetry.batch import Unreadable, refuse_too_many

STRING = rb'"(?:[^"\\]++|\\.)*+"'
FLAT = rb'[^"\[\]{}]++|' + STRING  # what has no brackets outside of strings
LEAF = rb"\[(?:%b)*+\]|\{(?:%b)*+\}" % (FLAT, FLAT)
LIST = rb'"events"\s*+:\s*+\['
# Each matches up to and including the next place that matters, in C and without ever looking back: Python runs once an element and once a
# bracket that has brackets inside, and no text makes the search quadratic.
IN_ENVELOPE = re.compile(rb'(?:[^"\[\]{}]++|(?!%b)%b|%b)*+(?:(%b)|[\[\]{}])' % (LIST, STRING, LEAF, LIST), re.DOTALL)
BETWEEN_ELEMENTS = re.compile(rb'(?:[^"\[\]{},]++|%b|%b)*+[\[\]{},]' % (STRING, LEAF), re.DOTALL)
INSIDE = re.compile(rb"(?:%b|%b)*+[\[\]{}]" % (FLAT, LEAF), re.DOTALL)
MEMBER = re.compile(rb"\s*+(%b)\s*+:(.*)" % STRING, re.DOTALL)
PLACES_A_CHECK = 16
MAX_MEMBERS = 64  # of an object that is read value by value
ESSENTIAL = frozenset({"app", "events", "type", "name", "ts", "props", "eventId"})
OPENING, CLOSING, COMMA = b"[{", b"]}", ord(",")


class Parts(NamedTuple):
    envelope: bytes  # with an empty list of events
    events: list[bytes]


def decode_batch(body: bytes, max_events: int) -> Any:
    """The decoded body, with Unreadable in the place of an event that cannot be decoded. Raises ApiError `bad_request`,
    `payload_too_large`."""
    try:
        return decode_json(body)
    except ApiError as error:
        if error.code != "bad_request" or (parts := split(body, max_events)) is None:
            raise
        envelope = _decode_envelope(parts.envelope)
    refuse_too_many(len(parts.events), max_events)
    time_slice, events = TimeSlice.of_loop_iteration(), []
    for raw in parts.events:
        events.append(decode_event_or_not(raw))
        time_slice.yield_if_over()
    return {**envelope, "events": events}


def _decode_envelope(text: bytes) -> dict[str, Any]:
    try:
        return decode_object(text)
    except ApiError:
        if (members := read_members(text)) is None:
            raise
        return members


def decode_event_or_not(raw: bytes) -> Any:
    """Unreadable, or an event of which some fields are."""
    value = decode_or_not(raw, "The event")
    if isinstance(value, Unreadable) and (members := read_members(raw)) is not None:
        return members
    return value


def decode_or_not(raw: bytes, what: str) -> Any:
    """Unreadable where it is no JSON; `what` is its name in the sentence that says so."""
    try:
        return decode_json(raw)
    except ApiError as error:
        return Unreadable(error.message.replace("The body", what, 1))


def read_members(raw: bytes) -> dict[str, Any] | None:
    """An object with Unreadable in the place of each value that cannot be decoded; None where it is no object, has too many members,
    or one of ESSENTIAL cannot be decoded."""
    start = len(raw) - len(raw.lstrip()) + 1
    if raw[start - 1 : start] != b"{" or (ends := _ends(raw, start, MAX_MEMBERS, TimeSlice.of_loop_iteration())) is None:
        return None
    if len(ends) > MAX_MEMBERS or raw[ends[-1] :].strip() != b"}":
        return None
    members: dict[str, Any] = {}
    for first, last in zip([start, *(end + 1 for end in ends)], ends):
        if (member := MEMBER.fullmatch(raw, first, last)) is None:
            return None
        name = decode_or_not(member[1], "The name")
        members[name] = value = decode_or_not(member[2], "The value")
        if isinstance(name, Unreadable) or (name in ESSENTIAL and isinstance(value, Unreadable)):
            return None
    return members


def split(body: bytes, max_events: int) -> Parts | None:
    """None where no list of events is to be seen. Raises ApiError `payload_too_large` at the first event too many. Looks at strings
    and brackets only, and no further than the list."""
    yield_before_large(len(body))
    time_slice = TimeSlice.of_loop_iteration()
    if (start := _start_of_list(body, time_slice)) is None or (ends := _ends(body, start, max_events, time_slice)) is None:
        return None
    refuse_too_many(len(ends), max_events)
    return _parts(body, start, ends)


def _start_of_list(body: bytes, time_slice: TimeSlice) -> int | None:
    depth, end = 0, 0
    for places in itertools.count():
        if (place := (IN_ENVELOPE if depth < 2 else INSIDE).match(body, end)) is None:
            return None
        end = place.end()
        if depth == 1 and place.lastindex:
            return end
        depth += 1 if body[end - 1] in OPENING else -1
        if places % PLACES_A_CHECK == 0:
            time_slice.yield_if_over()
    return None


def _ends(body: bytes, start: int, most: int, time_slice: TimeSlice) -> list[int] | None:
    """Where the elements end of the list or object that begins before `start`; of more than `most`, one more than these. None where
    it does not end."""
    depth, end, ends = 0, start, []
    for places in itertools.count():
        if (place := (INSIDE if depth else BETWEEN_ELEMENTS).match(body, end)) is None:
            return None
        end = place.end()
        char = body[end - 1]
        depth += (char in OPENING) - (char in CLOSING)
        if char == COMMA or depth < 0:
            ends.append(end - 1)
        if depth < 0:
            return ends
        if len(ends) == most and char == COMMA:
            return [*ends, end]
        if places % PLACES_A_CHECK == 0:
            time_slice.yield_if_over()
    return None


def _parts(body: bytes, start: int, ends: list[int]) -> Parts | None:
    starts = [start, *(end + 1 for end in ends[:-1])]
    events = [body[first:last] for first, last in zip(starts, ends)]
    if len(events) == 1 and not events[0].strip():
        events = []
    return Parts(body[:start] + body[ends[-1] :], events) if all(map(bytes.strip, events)) else None
