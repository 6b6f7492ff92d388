"""One table of event types: the schema, the fast way and the statistics follow it."""

import orjson
import pytest

from app.telemetry.batch import read_batch
from app.telemetry.event_types import CAN_FAIL, EVENT_TYPES, TABLE, WITH_VALUE
from app.telemetry.fast_batch import _read_plain
from app.telemetry.schemas import EventsQuerySchema
from app.telemetry.stats.counters import Counters

NOW = 1_790_000_000_000


def batch_of(type_: str) -> dict:
    return {"app": "shop", "events": [{"type": type_, "name": "n", "props": {"value": 5, "ok": False}}]}


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_the_fast_way_reads_every_type_of_the_table_as_the_schema_of_record_does(type_):
    fast = _read_plain(orjson.dumps(batch_of(type_)), NOW, 10, None)
    (slow,) = read_batch(batch_of(type_), NOW, 10, None).events
    assert [event.type for event in fast.events] == [slow.type] == [type_]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_statistics_read_values_and_failures_of_the_types_that_the_table_names(row):
    counters = Counters()
    counters.add(_read_plain(orjson.dumps(batch_of(row.name)), NOW, 10, None).events)
    assert bool(counters.values) is row.has_value is (row.name in WITH_VALUE)
    assert bool(counters.failed) is row.can_fail is (row.name in CAN_FAIL)


def test_a_query_may_ask_for_every_type_of_the_table():
    for type_ in EVENT_TYPES:
        assert EventsQuerySchema().load({"type": type_})["type"] == type_
