"""Reads a batch whose text is no JSON as a whole, so that what is wrong inside one event costs that event and no other: a number
beyond doubles, a NaN, nesting beyond any reader's, an escape or a byte that no string may have.

The invariant: where the envelope without its events is JSON, and every event has its quotes and brackets in pairs, each event is
judged by itself; in any other case the batch is no JSON, as before.
"""

import itertools
import re
from typing import Any, NamedTuple

from app.errors import ApiError
from app.http.json import decode_json, decode_object
from app.serving.turns import Turn, wait_before_large
from app.telemetry.batch import Unreadable, refuse_too_many

STRING = rb'"(?:[^"\\]++|\\.)*+"'
FLAT = rb'[^"\[\]{}]++|' + STRING  # what has no brackets outside of strings
LEAF = rb"\[(?:%b)*+\]|\{(?:%b)*+\}" % (FLAT, FLAT)
LIST = rb'"events"\s*+:\s*+\['
# Each matches up to and including the next place that matters, in C and without ever looking back: Python runs once an event and once a
# bracket that has brackets inside, and no text makes the search quadratic.
IN_ENVELOPE = re.compile(rb'(?:[^"\[\]{}]++|(?!%b)%b|%b)*+(?:(%b)|[\[\]{}])' % (LIST, STRING, LEAF, LIST), re.DOTALL)
BETWEEN_EVENTS = re.compile(rb'(?:[^"\[\]{},]++|%b|%b)*+[\[\]{},]' % (STRING, LEAF), re.DOTALL)
INSIDE = re.compile(rb"(?:%b|%b)*+[\[\]{}]" % (FLAT, LEAF), re.DOTALL)
PLACES_A_CHECK = 16
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
        envelope = decode_object(parts.envelope)
    refuse_too_many(len(parts.events), max_events)
    turn, events = Turn.of_the_round(), []
    for raw in parts.events:
        events.append(decode_event_or_not(raw))
        turn.check()
    return {**envelope, "events": events}


def decode_event_or_not(raw: bytes) -> Any:
    try:
        return decode_json(raw)
    except ApiError as error:
        return Unreadable(error.message.replace("The body", "The event", 1))


def split(body: bytes, max_events: int) -> Parts | None:
    """None where no list of events is to be seen. Raises ApiError `payload_too_large` at the first event too many. Looks at strings
    and brackets only, and no further than the list."""
    wait_before_large(len(body))
    depth, end, start, ends, turn = 0, 0, None, [], Turn.of_the_round()  # start of the list; where its events end
    for places in itertools.count():
        pattern = (IN_ENVELOPE if depth < 2 else INSIDE) if start is None else BETWEEN_EVENTS if depth == 2 else INSIDE
        if (place := pattern.match(body, end)) is None:
            return None
        end = place.end()
        char = body[end - 1]
        if char == COMMA:
            ends.append(end - 1)
            refuse_too_many(len(ends) + 1, max_events)
        if depth == 1 and place.lastindex:
            start = end
        depth += (char in OPENING) - (char in CLOSING)
        if start is not None and depth == 1:
            return _parts(body, start, [*ends, end - 1])
        if places % PLACES_A_CHECK == 0:
            turn.check()
    return None


def _parts(body: bytes, start: int, ends: list[int]) -> Parts | None:
    starts = [start, *(end + 1 for end in ends[:-1])]
    events = [body[first:last] for first, last in zip(starts, ends)]
    if len(events) == 1 and not events[0].strip():
        events = []
    return Parts(body[:start] + body[ends[-1] :], events) if all(map(bytes.strip, events)) else None
