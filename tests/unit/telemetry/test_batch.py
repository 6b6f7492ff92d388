"""From what was sent to what is stored."""

import pytest

from app.errors import ApiError
from app.telemetry.batch import MAX_SKEW_MS, known_id, read_batch
from app.telemetry.event import StoredEvent
from app.telemetry.fields import EARLIEST_MS
from app.telemetry.spool.event_lines import encode
from tests.apps import NOW

PAGE = {"type": "page", "name": "/home"}


def read(*events, now=NOW, max_events=1000, default_type=None, **envelope):
    return read_batch({"app": "web", **envelope, "events": list(events)}, now, max_events, default_type)


def only(batch):
    assert batch.rejected == []
    assert len(batch.events) == 1
    return batch.events[0]


def reason(batch):
    assert batch.events == []
    return batch.rejected[0]["message"]


def test_an_event_is_stored_with_its_envelope_and_the_server_s_times():
    event = only(read({**PAGE, "props": {"a": 1}}, release="1.2", env="prod", userId="u", sessionId="s", user={"plan": "pro"}))
    assert event == StoredEvent(
        id=event.id, app="web", release="1.2", env="prod", user_id="u", session_id="s", user={"plan": "pro"},
        type="page", name="/home", props={"a": 1}, ts=NOW, created_at=NOW,
    )  # fmt: skip


def test_an_event_overrides_any_field_of_the_envelope():
    event = only(read({**PAGE, "app": "shop", "userId": "other"}, userId="u", release="1"))
    assert (event.app, event.user_id, event.release) == ("shop", "other", "1")


def test_app_may_stand_on_the_event_alone():
    batch = read_batch({"events": [{**PAGE, "app": "web"}, PAGE]}, NOW, 10)
    assert [event.app for event in batch.events] == ["web"]
    assert batch.rejected[0]["index"] == 1
    assert "app" in batch.rejected[0]["message"]


def test_one_bad_event_never_costs_the_others():
    batch = read(PAGE, {"type": "nonsense", "name": "x"}, "not an object", None, 7, [], {**PAGE, "name": ""}, PAGE)
    assert len(batch.events) == 2
    assert [row["index"] for row in batch.rejected] == [1, 2, 3, 4, 5, 6]
    assert {row["code"] for row in batch.rejected} == {"bad_request"}


def test_a_rejection_names_the_field_and_the_reason():
    assert reason(read({"type": "page"})) == "name: Missing data for required field."


def test_null_means_the_same_as_absent():
    event = only(read({**PAGE, "ts": None, "props": None, "eventId": None, "userId": None}, release=None, userId="u"))
    assert (event.props, event.user_id, event.release) == ({}, "u", None)


def test_unknown_fields_are_ignored():
    assert b"red" not in encode([only(read({**PAGE, "color": "red"}, shape="round"))])


def test_a_missing_type_is_perf_only_where_the_route_says_so():
    assert only(read({"name": "lcp"}, default_type="perf")).type == "perf"
    assert "type" in reason(read({"name": "lcp"}))
    assert only(read(PAGE, default_type="perf")).type == "page"


def test_a_whole_number_is_taken_as_an_identifier():
    batch = read(PAGE, userId=42)
    assert (only(batch).user_id, batch.adjusted) == ("42", [])


@pytest.mark.parametrize("length, fits", [(0, False), (1, True), (256, True), (257, False)])
def test_a_name_has_1_to_256_characters(length, fits):
    assert bool(read({"type": "event", "name": "n" * length}).events) is fits


@pytest.mark.parametrize(
    "body, path",
    [
        ([], None),
        ("x", None),
        (None, None),
        ({"events": {}}, "events"),
        ({"events": None}, "events"),
        ({"event": [PAGE]}, "events"),
        ({"app": 5, "events": []}, "app"),
    ],
)
def test_an_envelope_of_the_wrong_shape_is_a_bad_request_with_the_path(body, path):
    with pytest.raises(ApiError) as caught:
        read_batch(body, NOW, 10)
    assert caught.value.code == "bad_request"
    if path:
        assert caught.value.details[0]["path"] == path


@pytest.mark.parametrize("body", [{}, {"app": "web"}, {"events": []}, {"app": "web", "events": []}])
def test_no_events_are_nothing_to_save(body):
    batch = read_batch(body, NOW, 10)
    assert (batch.events, batch.rejected) == ([], [])


def test_more_events_than_allowed_are_too_large():
    assert len(read(*[PAGE] * 10, max_events=10).events) == 10
    with pytest.raises(ApiError) as caught:
        read(*[PAGE] * 11, max_events=10)
    assert caught.value.code == "payload_too_large"


# --- identity


def test_the_same_event_id_of_the_same_app_is_the_same_event():
    first, second = only(read({**PAGE, "eventId": "e1"})), only(read({**PAGE, "eventId": "e1"}, now=NOW + 5))
    assert first.id == second.id == known_id("web", "e1")
    assert only(read({**PAGE, "eventId": "e1", "app": "shop"})).id != first.id


def test_app_and_event_id_cannot_run_into_one_another():
    assert known_id("ab", "c") != known_id("a", "bc")


def test_an_event_without_an_id_gets_one_of_its_own_ordered_by_time():
    earlier, later = read(*[PAGE] * 300), read(*[PAGE] * 300, now=NOW + 1)
    ids = [event.id for event in earlier.events + later.events]
    assert len(set(ids)) == 600
    assert ids == sorted(ids)


# --- time


A_SECOND_AGO = [NOW - 1000, float(NOW - 1000), "2025-10-09T08:53:19Z", "2025-10-09T10:53:19+02:00", "2025-10-09T08:53:19.000"]


@pytest.mark.parametrize("ts", A_SECOND_AGO)
def test_ts_is_epoch_milliseconds_or_iso_8601(ts):
    event = only(read({**PAGE, "ts": ts}))
    assert event.ts == NOW - 1000
    assert event.raw_ts is None


@pytest.mark.parametrize("ts", ["yesterday", True, [], {}, -1, 1e300, 253_402_300_800_000, "0000-01-01", "2025-13-01", "9" * 50])
def test_a_ts_that_is_no_time_is_a_rejection(ts):
    assert reason(read({**PAGE, "ts": ts})).startswith("ts: Must be")


def test_sent_at_corrects_a_clock_that_is_more_than_a_minute_off_and_keeps_the_raw_time():
    off = 10 * MAX_SKEW_MS
    event = only(read({**PAGE, "ts": NOW - off - 500}, sentAt=NOW - off))
    assert event.ts == NOW - 500
    assert event.raw_ts == NOW - off - 500


def test_a_clock_ahead_is_corrected_too():
    event = only(read({**PAGE, "ts": NOW + 10 * MAX_SKEW_MS}, sentAt=NOW + 10 * MAX_SKEW_MS + 7))
    assert event.ts == NOW - 7


@pytest.mark.parametrize("skew", [-MAX_SKEW_MS, -1, 0, 1, MAX_SKEW_MS])
def test_a_skew_of_up_to_a_minute_is_left_alone(skew):
    event = only(read({**PAGE, "ts": NOW - 500}, sentAt=NOW - skew))
    assert event.ts == NOW - 500
    assert event.raw_ts is None


def test_a_ts_in_the_far_future_becomes_now_and_the_raw_one_is_kept():
    event = only(read({**PAGE, "ts": "2099-01-01T00:00:00Z"}))
    assert event.ts == NOW
    assert event.raw_ts == 4_070_908_800_000


def test_a_correction_never_leaves_the_calendar():
    event = only(read({**PAGE, "ts": 0}, sentAt="9999-12-31T00:00:00Z"))
    assert (event.ts, event.raw_ts) == (NOW, 0)


# --- what BSON could not hold is refused before it is answered as saved


def nested(levels):
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "props, fragment",
    [
        ({"a\0b": 1}, "NUL"),
        ({"a": {"b\0": 1}}, "NUL"),
        (nested(33), "32 levels"),
        ([1], "object"),
        ("text", "object"),
        ({"a": "x" * 32_768}, "32768 bytes"),
    ],
)
def test_props_that_could_not_be_stored_are_a_rejection(props, fragment):
    message = reason(read({**PAGE, "props": props}))
    assert message.startswith("props: Must")
    assert fragment in message


AT_THE_LIMITS = [{"a": 2**63 - 1, "b": -(2**63)}, {"http.method": "GET", "$x": 1, "": 2}, nested(32), {"a": "x" * 32_760}]


@pytest.mark.parametrize("props", AT_THE_LIMITS)
def test_props_at_the_limits_are_kept_as_they_are(props):
    assert only(read({**PAGE, "props": props})).props == props


# --- what is sloppy but clear is taken, and named


NUMBERS = {"n": 2**63, "m": [1, {"k": -(2**63) - 1}]}
ADJUSTED = [
    ("userId", "", "user_id", None),
    ("userId", True, "user_id", None),
    ("userId", ["u"], "user_id", None),
    ("userId", 5.0, "user_id", "5"),
    ("userId", "u" * 257, "user_id", "u" * 256),
    ("sessionId", "", "session_id", None),
    ("release", "", "release", None),
    ("release", "r" * 129, "release", "r" * 128),
    ("release", 1.5, "release", "1.5"),
    ("env", "", "env", None),
    ("env", {}, "env", None),
    ("user", "", "user", None),
    ("user", "u1", "user", None),
    ("user", [], "user", None),
    ("user", NUMBERS, "user", {"n": float(2**63), "m": [1, {"k": float(-(2**63))}]}),
    ("user", {"a": "x" * 8_192}, "user", None),
    ("user", {"a\0": 1}, "user", None),
    ("user", nested(33), "user", None),
]


@pytest.mark.parametrize("field, sent, attribute, taken", ADJUSTED)
def test_what_only_describes_events_never_costs_them_and_is_named(field, sent, attribute, taken):
    on_batch = read(PAGE, PAGE, **{field: sent})
    assert ([getattr(event, attribute) for event in on_batch.events], on_batch.rejected) == ([taken, taken], [])
    assert [row["path"] for row in on_batch.adjusted] == [field]
    on_event = read(PAGE, {**PAGE, field: sent})
    assert (getattr(on_event.events[1], attribute), on_event.rejected) == (taken, [])
    assert [row["path"] for row in on_event.adjusted] == [f"events.1.{field}"]


@pytest.mark.parametrize("sent_at", ["", -1, True, [], "soon", 1e300, 2**59, "1969-12-31T23:59:59Z"])
def test_a_sent_at_that_is_no_time_is_absent(sent_at):
    batch = read({**PAGE, "ts": NOW - 500}, sentAt=sent_at)
    assert (only(batch).ts, only(batch).raw_ts) == (NOW - 500, None)
    assert [row["path"] for row in batch.adjusted] == ["sentAt"]


OTHER_CLOCKS = [
    (NOW // 1000, "Epoch seconds"),
    (NOW / 1000, "Epoch seconds"),
    (NOW * 1000, "Epoch microseconds"),
    (NOW * 10**6, "Epoch nanoseconds"),
    (str(NOW // 1000), "Epoch seconds"),
    (str(NOW), "Digits"),
    (f" {NOW}\n", "Digits"),
    (f"{NOW}.5", "Digits"),
    (f"{NOW // 1000}.000", "Epoch seconds"),
    (" 2025-10-09T08:53:20Z ", "ISO"),
    ("2025-10-09 08:53:20 UTC", "ISO"),
    ("2025-10-09T08:53:20.000GMT", "ISO"),
    ("Thu, 09 Oct 2025 08:53:20 GMT", "HTTP"),
]


@pytest.mark.parametrize("time, word", OTHER_CLOCKS)
def test_a_time_in_another_unit_or_form_is_recognised_and_named(time, word):
    on_event = read({**PAGE, "ts": time})
    assert (only(on_event).ts, only(on_event).raw_ts) == (NOW, None)
    assert on_event.adjusted[0]["path"] == "events.0.ts" and word in on_event.adjusted[0]["message"]
    on_batch = read({**PAGE, "ts": NOW}, sentAt=time)
    assert (only(on_batch).ts, on_batch.adjusted[0]["path"]) == (NOW, "sentAt")


@pytest.mark.parametrize("ts", [0, 12_345.6, 86_400_000, 10**9 - 1, 10**10, EARLIEST_MS - 1, "1970-01-01T00:00:12Z", "12345.6"])
def test_a_ts_before_2000_is_absent_and_named_and_the_raw_one_is_kept(ts):
    batch = read({**PAGE, "ts": ts})
    assert only(batch).ts == NOW
    assert only(batch).raw_ts < EARLIEST_MS
    assert batch.adjusted[-1] == {"path": "events.0.ts", "message": "Before the year 2000: taken as absent."}


@pytest.mark.parametrize("ts", [EARLIEST_MS, 10**12])
def test_a_ts_from_2000_on_is_left_alone(ts):
    batch = read({**PAGE, "ts": ts})
    assert (only(batch).ts, only(batch).raw_ts, batch.adjusted) == (ts, None, [])


def test_an_unset_clock_that_wrote_sent_at_too_is_corrected():
    batch = read({**PAGE, "ts": 12_000}, sentAt=12_500)
    assert (only(batch).ts, only(batch).raw_ts, batch.adjusted) == (NOW - 500, 12_000, [])


def test_a_ts_of_another_clock_than_sent_at_is_absent():
    batch = read({**PAGE, "ts": 12_345.6}, sentAt=NOW - 10 * MAX_SKEW_MS)
    assert (only(batch).ts, only(batch).raw_ts, [row["path"] for row in batch.adjusted]) == (NOW, 12_345, ["events.0.ts"])


@pytest.mark.parametrize("ts", ["2025-10-09T08:53:20z", "2025-10-09T08:53:20,000Z", "2025-10-09T10:53:20+0200"])
def test_what_iso_8601_allows_is_not_adjusted(ts):
    batch = read({**PAGE, "ts": ts})
    assert (only(batch).ts, batch.adjusted) == (NOW, [])


def test_whole_numbers_beyond_64_bits_are_doubles_as_in_javascript():
    batch = read({**PAGE, "props": NUMBERS}, {**PAGE, "props": {"a": 2**63 - 1}})
    assert batch.events[0].props == {"n": float(2**63), "m": [1, {"k": float(-(2**63))}]}
    assert [row["path"] for row in batch.adjusted] == ["events.0.props"]


@pytest.mark.parametrize("field", ["app", "ts", "props"])
def test_an_empty_field_of_an_event_is_absent(field):
    batch = read({**PAGE, field: ""})
    assert (only(batch).app, only(batch).ts, only(batch).props) == ("web", NOW, {})
    assert [row["path"] for row in batch.adjusted] == [f"events.0.{field}"]


def test_an_empty_app_of_the_batch_costs_only_the_events_without_one():
    batch = read({**PAGE, "app": "shop"}, PAGE, app="")
    assert ([event.app for event in batch.events], [row["index"] for row in batch.rejected]) == (["shop"], [1])


def test_what_is_rejected_is_not_named_as_adjusted():
    batch = read({"type": "page", "release": ""}, PAGE)
    assert (len(batch.rejected), batch.adjusted) == (1, [])


def test_an_empty_event_id_is_absent_and_named():
    batch = read({**PAGE, "eventId": ""}, {**PAGE, "eventId": ""})
    assert len({event.id for event in batch.events}) == 2
    assert [row["path"] for row in batch.adjusted] == ["events.0.eventId", "events.1.eventId"]


def test_an_empty_list_of_props_is_an_empty_object():
    batch = read({**PAGE, "props": []})
    assert (only(batch).props, [row["path"] for row in batch.adjusted]) == ({}, ["events.0.props"])
