"""What a flag may look like. Strict on purpose: a mistake in a flag must be seen by its author and not by everybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.errors import flatten_messages
from app.flags.flag import Flag
from app.flags.schemas import NewFlagSchema, read_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ["key", "enabled", "rules", "startAt", "endAt", "description", "version", "updatedAt"]


def load(**fields):
    return Flag(**NewFlagSchema().load({"key": "f", **fields}))


def paths_refused(**fields):
    with pytest.raises(ValidationError) as refused:
        load(**fields)
    return [row["path"] for row in flatten_messages(refused.value.normalized_messages())]


@pytest.mark.parametrize("key", ["a", "9", "new-checkout", "team.checkout:v2_final", "A" * 128])
def test_a_key_of_letters_digits_and_the_four_signs_is_accepted(key):
    assert load(key=key).key == key


@pytest.mark.parametrize("key", ["", "-a", ".a", "a b", "a/b", "é", "a\n", "A" * 129, None, 1, ["a"]])
def test_any_other_key_is_refused(key):
    assert paths_refused(key=key) == ["key"]


@pytest.mark.parametrize("moment", [1_767_225_600_000, 1_767_225_600_000.0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000+00:00",
                                    "2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00", "2026-01-01"])  # fmt: skip
def test_a_time_is_epoch_milliseconds_or_iso_8601_and_utc_where_it_names_no_zone(moment):
    assert load(startAt=moment).start_at == 1_767_225_600_000
    assert load(startAt=moment).record["startAt"] == "2026-01-01T00:00:00.000Z"


def test_a_time_may_be_null():
    assert load(startAt=None, endAt=None).record["startAt"] is None


@pytest.mark.parametrize("moment", ["soon", "", True, [], {}, -1, 10**30, float("inf"), float("nan"), 253_402_300_800_000,
                                    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])  # fmt: skip
def test_any_other_value_is_refused_as_a_time(moment):
    assert paths_refused(startAt=moment) == ["startAt"]


@pytest.mark.parametrize("field", ["startAt", "endAt"])
@pytest.mark.parametrize(
    "moment, unit",
    [
        (1_767_225_600, "seconds"),
        (1_767_225_600.5, "seconds"),
        (1_767_225_600 * 10**6, "microseconds"),
        (1_767_225_600 * 10**9, "nanoseconds"),
    ],
)
def test_a_time_in_another_unit_is_refused_with_the_unit_and_the_milliseconds(field, moment, unit):
    with pytest.raises(ValidationError) as refused:
        load(**{field: moment})
    (message,) = refused.value.messages[field]
    assert f"looks like {unit}: 1767225600" in message and "in milliseconds" in message


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00z", "2025-12-31T23:59:60Z", "2025-12-31t23:59:60z"])
def test_iso_8601_with_small_letters_and_leap_seconds_is_accepted(moment):
    assert load(startAt=moment).start_at == 1_767_225_600_000


@pytest.mark.parametrize("end_at", ["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z"])
def test_a_window_that_ends_before_it_starts_is_refused(end_at):
    assert paths_refused(startAt="2026-01-01T00:00:00Z", endAt=end_at) == ["endAt"]


@pytest.mark.parametrize("name", ["roles", "Percent", "percentage", "userId", ""])
def test_a_misspelt_rule_is_refused(name):
    assert paths_refused(rules={name: 1}) == [f"rules.{name}" if name else "rules"]


@pytest.mark.parametrize("percent", [-1, 100.1, "50", True, None, float("nan"), [50]])
def test_a_percentage_is_a_number_from_0_to_100(percent):
    assert paths_refused(rules={"percent": percent}) == ["rules.percent"]


@pytest.mark.parametrize("percent", [0, 50, 12.5, 100])
def test_a_percentage_keeps_the_type_of_its_number(percent):
    assert repr(load(rules={"percent": percent}).record["rules"]["percent"]) == repr(percent)


@pytest.mark.parametrize("role", ["admin", [], None, ["a"] * 101])
def test_roles_are_a_list_of_1_to_100(role):
    assert paths_refused(rules={"role": role}) == ["rules.role"]


def test_each_wrong_role_is_named_by_its_index():
    assert paths_refused(rules={"role": ["admin", 1, ""]}) == ["rules.role.1", "rules.role.2"]


@pytest.mark.parametrize("enabled", ["true", "yes", 1, 0, None])
def test_enabled_accepts_only_true_and_false(enabled):
    assert paths_refused(enabled=enabled) == ["enabled"]


def test_an_unknown_field_is_refused():
    assert paths_refused(startsAt="2026-01-01") == ["startsAt"]


def test_all_mistakes_are_named_at_once():
    assert paths_refused(key="-", enabled=1, rules={"percent": 101, "x": 1}) == ["key", "enabled", "rules.percent", "rules.x"]


def test_a_flag_that_was_read_may_be_sent_back():
    flag = Flag("f", True, {"percent": 5}, 1000, 2000, "why", version=7, updated_at=3000)
    assert load(**flag.record) == Flag("f", True, {"percent": 5}, 1000, 2000, "why")


def test_a_stored_record_loads_as_the_same_flag():
    flag = Flag("f", True, {"percent": 5, "role": ["a"]}, 1000, 2000, "why", version=7, updated_at=3000)
    assert read_record(flag.record, 0) == flag


def test_a_manual_record_needs_only_its_key():
    assert read_record({"key": "f"}, 5000) == Flag("f", updated_at=5000)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_any_record_is_read_or_refused(record):
    try:
        flag = read_record(record, 0)
    except ValidationError:
        return
    assert read_record(flag.record, 0) == flag
