"""Counts events by their own minute, with failures and values, and with no more names than allowed."""

import pytest

from app.telemetry.batch import read_batch
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS, Bucket, widened
from app.telemetry.stats.counters import OTHER, Counters, Names, has_failed, slices, value_in
from app.telemetry.stats.sketch import bin_of
from tests.apps import NOW

AT = NOW - NOW % MINUTE_MS


def events(*rows, **envelope):
    sent = [{"type": type_, "name": name, "ts": NOW, **rest} for type_, name, rest in rows]
    return read_batch({"app": "web", **envelope, "events": sent}, NOW, 10_000).events


def pages(*names, **envelope):
    return events(*(("page", name, {}) for name in names), **envelope)


def buckets_of(*batches, names=None):
    counters = Counters()
    for batch in batches:
        counters.add(batch)
    buckets = counters.limited(names or Names(), lambda *group: group, lambda: None).buckets()
    return sorted(buckets, key=lambda bucket: (bucket.app, bucket.env or "", bucket.at))


def test_each_event_is_counted_under_its_app_env_minute_type_and_name():
    late = events(("page", "/", {"ts": NOW - DAY_MS, "app": "shop"}))
    found = buckets_of(pages("/", "/", "/cart"), pages("/", env="prod"), late, events(("event", "/", {})))
    assert found == [
        Bucket("shop", None, AT - DAY_MS, {"page": {"/": 1}}),
        Bucket("web", None, AT, {"page": {"/": 2, "/cart": 1}, "event": {"/": 1}}),
        Bucket("web", "prod", AT, {"page": {"/": 1}}),
    ]


@pytest.mark.parametrize(
    "props, failed",
    [({"ok": False}, True), ({"ok": False, "status": 200}, True), ({"ok": True, "status": 500}, False), ({"status": 400}, True),
     ({"status": 399}, False), ({"status": 0}, True), ({"status": 503.0}, True), ({"status": True}, False), ({"status": "500"}, False),
     ({"ok": 0}, False), ({}, False)],
)  # fmt: skip
def test_an_api_event_failed_by_its_ok_and_without_ok_by_its_status(props, failed):
    assert has_failed(props) is failed
    (bucket,) = buckets_of(events(("api", "GET /x", {"props": props}), ("event", "GET /x", {"props": props})))
    assert bucket.failed == ({"GET /x": 1} if failed else {})


@pytest.mark.parametrize(
    "props, value",
    [({"value": 1.5, "duration": 2}, 1.5), ({"value": "x", "duration": 2}, 2), ({"ms": 3}, 3), ({"value": None, "ms": 0}, 0),
     ({"value": True}, None), ({"value": -1, "ms": 3}, None), ({}, None), ({"value": {"ms": 1}}, None)],
)  # fmt: skip
def test_the_value_is_the_first_number_among_value_duration_and_ms(props, value):
    assert value_in(props) == value
    (bucket,) = buckets_of(events(("perf", "lcp", {"props": props}), ("page", "lcp", {"props": props})))
    assert bucket.values == ({} if value is None else {"perf": {"lcp": {bin_of(value): 1}}})


def test_of_too_many_names_the_rarest_are_counted_under_other():
    found = buckets_of(pages(*"abc", *"cb"), pages("c", "c"), names=Names(max_names=2))
    assert found[0].counts == {"page": {"c": 4, "b": 2, OTHER: 1}}


def test_a_name_keeps_its_place_and_failures_and_values_are_counted_under_the_same_name():
    names = Names(max_names=1)
    api = [("api", name, {"props": {"ok": False, "duration": 5}}) for name in ("known", "late")]
    buckets_of(events(api[0]), names=names)
    (bucket,) = buckets_of(events(*api), names=names)
    assert (bucket.counts, bucket.failed) == ({"api": {"known": 1, OTHER: 1}}, {"known": 1, OTHER: 1})
    assert bucket.values["api"].keys() == {"known", OTHER}


def test_each_application_and_env_has_names_of_its_own_up_to_a_number_of_pairs():
    names = Names(max_names=1, max_sets=2)
    found = buckets_of(pages("a"), pages("b", env="prod"), pages("c", app="shop"), names=names)
    assert sorted(str(bucket.counts) for bucket in found) == ["{'page': {'(other)': 1}}", "{'page': {'a': 1}}", "{'page': {'b': 1}}"]


def test_names_are_forgotten_when_a_new_day_begins():
    names = Names(max_names=1)
    assert names.at(NOW).has_room_for("web", None, "page", "a") and not names.has_room_for("web", None, "page", "b")
    assert not names.at(NOW + 1).has_room_for("web", None, "page", "b")
    assert names.at(NOW + DAY_MS).has_room_for("web", None, "page", "b")


def test_wider_buckets_have_the_same_counts():
    buckets = [Bucket("web", None, AT + minute * MINUTE_MS, {"page": {"/": 1}}) for minute in range(-600, 600)]
    for level_ms in (MINUTE_MS, 60 * MINUTE_MS, DAY_MS):
        wide = widened(buckets, level_ms)
        assert all(bucket.at % level_ms == 0 for bucket in wide)
        assert sum(bucket.counts["page"]["/"] for bucket in wide) == 1200


def test_slices_contain_every_event_once():
    batches = [pages(*"ab"), pages(*"cdefg"), pages("h")]
    assert [[event.name for event in part] for part in slices(batches, 4)] == [list("abcdefg"), ["h"]]
