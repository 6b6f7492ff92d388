"""One catalogue for both doors."""

import pytest

from app.errors import CATALOGUE, HTTP_STATUS_TO_CODE, MAX_REASON, ApiError, flatten_messages


def test_every_row_has_an_error_status_and_a_whole_sentence():
    for code, row in CATALOGUE.items():
        assert 400 <= row.status <= 599, code
        assert row.sentence[0].isupper() and row.sentence.endswith("."), code


def test_what_the_client_did_wrong_is_not_retryable_and_what_went_wrong_here_is():
    for code, row in CATALOGUE.items():
        assert row.retryable == (row.status >= 500 or code == "rate_limited"), code


def test_every_http_status_leads_to_a_row():
    for status, code in HTTP_STATUS_TO_CODE.items():
        assert CATALOGUE[code].status == status or (status, code) == (422, "bad_request")


def test_the_codes_of_the_realtime_contract_are_all_there():
    promised = """bad_request bad_ack unauthorized token_expired forbidden unknown_topic payload_too_large limit_exceeded rate_limited
                  epoch_changed history_gap delivery_failed slow_consumer unavailable internal"""
    assert set(promised.split()) <= CATALOGUE.keys()


def test_an_error_says_what_happened_and_whether_to_try_again():
    assert ApiError("unavailable").to_dict() == {
        "code": "unavailable", "message": CATALOGUE["unavailable"].sentence, "retryable": True,
    }  # fmt: skip
    detailed = ApiError("bad_request", "No.", details=[{"path": "app", "message": "Missing"}])
    assert detailed.to_dict()["details"] == [{"path": "app", "message": "Missing"}]
    assert ApiError("rate_limited", retry_after_ms=0).to_dict()["retryAfterMs"] == 0


def test_a_code_that_is_not_in_the_catalogue_cannot_be_raised():
    with pytest.raises(KeyError):
        ApiError("something_else")


@pytest.mark.parametrize(
    ("messages", "rows"),
    [
        ({}, []),
        ({"events": {3: {"name": ["Missing", "Short"]}}}, [("events.3.name", "Missing"), ("events.3.name", "Short")]),
        ({"_schema": ["Not an object"]}, [("", "Not an object")]),
        ({"rules": {"_schema": ["Odd"]}}, [("rules", "Odd")]),
        ("No.", [("", "No.")]),
        ({"a": None}, [("a", "None")]),
    ],
)
def test_nested_messages_become_a_list_of_paths(messages, rows):
    assert [(row["path"], row["message"]) for row in flatten_messages(messages)] == rows


def test_of_very_many_messages_the_first_hundred_are_told_and_how_many_more_there_are():
    rows = flatten_messages({"rules": {f"rule{n}": ["No such rule."] for n in range(40_000)}})
    assert len(rows) == 101
    assert rows[99] == {"path": "rules.rule99", "message": "No such rule."}
    assert rows[100] == {"path": "", "message": "And 39900 more."}
    assert len(flatten_messages([str(n) for n in range(100)])) == 100


def test_for_a_log_an_error_is_its_sentence_and_the_first_of_its_details():
    assert ApiError("conflict").summary == "It exists already."
    details = [{"path": "events", "message": "Missing."}, {"path": "app", "message": "Too long."}]
    assert ApiError("bad_request", "The wrong shape.", details=details).summary == "The wrong shape. events: Missing."
    assert len(ApiError("bad_request", details=[{"path": "x" * 9000, "message": ""}]).summary) == MAX_REASON
