"""Pages of events, the newest first."""

import base64

import pytest

from app.errors import ApiError
from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, decode_cursor, encode_cursor, matches, page_of

EVENTS = [
    StoredEvent(id=f"id{n % 3}{n}", app="web", type="page", name="even" if n % 2 == 0 else "odd", props={}, ts=1000 + n // 3, created_at=0)
    for n in range(20)
]


def read_all(query_limit):
    seen, after = [], None
    while True:
        query = EventQuery(exact={}, after=after, limit=query_limit)
        page = page_of([event for event in EVENTS if matches(event, query)], query_limit)
        seen += page.events
        if page.next_cursor is None:
            return seen
        after = decode_cursor(page.next_cursor)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 19, 20, 21])
def test_pages_of_any_size_together_are_every_event_once_the_newest_first(limit):
    assert read_all(limit) == sorted(EVENTS, key=lambda event: event.position, reverse=True)


def test_the_start_is_inclusive_and_the_end_exclusive():
    query = EventQuery(exact={}, since=1001, until=1003)
    assert {event.ts for event in EVENTS if matches(event, query)} == {1001, 1002}


def test_an_exact_filter_needs_the_field_to_be_there():
    assert not matches(EVENTS[0], EventQuery(exact={"user_id": "u"}))
    assert matches(EVENTS[0], EventQuery(exact={"name": "even"}))


def test_a_cursor_survives_its_own_encoding():
    assert decode_cursor(encode_cursor(EVENTS[7])) == EVENTS[7].position


WRONG_INSIDE = ["[]", "[1]", "{}", '["1","x"]', "[1,2]", '[-1,"x"]', '[1e99,"x"]', '[true,"x"]']


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!!!", "é", "a" * 10_000, *(base64.urlsafe_b64encode(text.encode()).decode() for text in WRONG_INSIDE)],
)
def test_a_cursor_that_was_not_given_out_here_is_a_bad_request(cursor):
    with pytest.raises(ApiError) as caught:
        decode_cursor(cursor)
    assert caught.value.code == "bad_request"
