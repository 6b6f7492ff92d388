"""A line of an imported file is validated like an event that is sent, and gets the same id each time."""

import json

import pytest

from app.telemetry.importing.line_reader import LineReader
from app.telemetry.spool.event_lines import Unusable
from tests.apps import NOW

EVENT = {"app": "web", "type": "event", "name": "signup"}


def read(now=NOW, **fields):
    ((_, found),) = LineReader(now).read(json.dumps({**EVENT, **fields}).encode() + b"\n", b"file", 120)
    return found


@pytest.mark.parametrize("ts", [NOW // 1000, NOW * 1000, str(NOW)])
def test_a_time_in_another_unit_is_corrected_as_in_a_batch(ts):
    assert read(ts=ts).ts == NOW


@pytest.mark.parametrize("fields", [{"userId": ""}, {"release": "r" * 200}, {"user": "u1"}, {"ts": ""}])
def test_a_line_with_an_invalid_descriptive_field_is_read_and_has_the_same_id_each_time(fields):
    assert read(**fields).id == read(now=NOW + 5, **fields).id


def test_a_line_is_rejected_for_the_same_reason_as_an_event_of_a_batch():
    assert isinstance(rejected := read(props=[1]), Unusable)
    assert "props: Must be an object" in str(rejected)
