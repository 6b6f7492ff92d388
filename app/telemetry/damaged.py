"""Reads a batch whose text is no JSON as a whole, so that what is wrong inside one event costs that event and no other: a number
beyond doubles, a NaN, nesting beyond any reader's, an escape or a byte that no string may have.

The invariant: where the envelope without its events is JSON, and every event has its quotes and brackets in pairs, each event is
judged by itself; in any other case the batch is no JSON, as before.
"""

import re
from typing import Any, NamedTuple

from app.errors import ApiError
from app.http.json import decode_json, decode_object
from app.serving.turns import Turn, wait_before_large
from app.telemetry.batch import Unreadable, refuse_too_many

TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+"|[\[\]{}]', re.DOTALL)
TOKENS_A_CHECK = 1000
OPENING, CLOSING = b"[{", b"]}"
KEY = b'"events"'


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
    """None where no list of events is to be seen. Raises ApiError `payload_too_large`. Looks at strings and brackets
    only, and no further than the list."""
    wait_before_large(len(body))
    depth, before, turn = 0, None, Turn.of_the_round()
    start, ends = None, []  # of the list; where its events end
    for count, token in enumerate(TOKEN.finditer(body)):
        char, gap = body[token.start()], (before.end() if before else 0, token.start())
        if start is not None and depth == 2:
            ends += _commas(body, *gap, max_events)
        elif depth == 1 and char == OPENING[0] and before is not None and before[0] == KEY and body[slice(*gap)].strip() == b":":
            start = token.end()
        depth += (char in OPENING) - (char in CLOSING)
        if start is not None and depth == 1:
            return _parts(body, start, [*ends, token.start()])
        before = token
        if count % TOKENS_A_CHECK == 0:
            turn.check()
    return None


def _commas(body: bytes, start: int, end: int, max_events: int) -> list[int]:
    refuse_too_many(body.count(b",", start, end), max_events)
    places, place = [], body.find(b",", start, end)
    while place >= 0:
        places.append(place)
        place = body.find(b",", place + 1, end)
    return places


def _parts(body: bytes, start: int, ends: list[int]) -> Parts | None:
    starts = [start, *(end + 1 for end in ends[:-1])]
    events = [body[first:last] for first, last in zip(starts, ends)]
    if len(events) == 1 and not events[0].strip():
        events = []
    return Parts(body[:start] + body[ends[-1] :], events) if all(map(bytes.strip, events)) else None
