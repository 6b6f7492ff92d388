"""The types of events, a row each. The schema, the fast way, the statistics and the queries read this table.

A new type is a new row here and a line in docs/reference/http.md.
"""

from typing import NamedTuple


class EventType(NamedTuple):
    """One type, and what the statistics read from its events beside their number."""

    name: str
    has_value: bool = False  # `props.value`, `props.duration` or `props.ms`, for percentiles
    can_fail: bool = False  # `props.ok` or `props.status`, for the failure rate
    is_error: bool = False  # counts in the error rate


TABLE = (
    EventType("page"),
    EventType("event"),
    EventType("error", is_error=True),
    EventType("api", has_value=True, can_fail=True),
    EventType("perf", has_value=True),
)

EVENT_TYPES = tuple(row.name for row in TABLE)
WITH_VALUE = frozenset(row.name for row in TABLE if row.has_value)
CAN_FAIL = frozenset(row.name for row in TABLE if row.can_fail)
READ_PROPS = WITH_VALUE | CAN_FAIL  # types whose props the statistics read
ERRORS = frozenset(row.name for row in TABLE if row.is_error)
