"""POST /api/telemetry/batch and /api/perf/batch, through every way a browser or an app can send."""

import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.storage.errors import StorageUnavailable
from app.telemetry.sinks.memory import MemorySink
from tests.apps import WRITE_KEY, bearer, error_of, make_app

URL = "/api/telemetry/batch"
KEY = {"X-Write-Key": WRITE_KEY}
PAGE = {"type": "page", "name": "/home"}
BATCH = {"app": "web", "events": [PAGE]}
HUGE = 512_000


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return make_app(tmp_path_factory.mktemp("app"), parts={"sink": MemorySink()}, rate_limit_http="100000/second")


@pytest.fixture
def client(app):
    return app.test_client()


def send(client, body=BATCH, url=URL, headers=KEY, **options):
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return client.post(url, data=data, headers=headers, **{"content_type": "application/json", **options})


# --- who may send


@pytest.mark.parametrize("headers", [KEY, {"Authorization": f"Bearer {WRITE_KEY}"}, bearer("u1")], ids=["header", "bearer", "token"])
def test_a_write_key_or_a_token_may_send(client, headers):
    assert send(client, headers=headers).get_json() == {"ok": True, "saved": 1, "storage": "memory"}


def test_a_beacon_brings_its_write_key_in_the_address(client):
    assert send(client, url=f"{URL}?writeKey={WRITE_KEY}", headers={}, content_type="text/plain;charset=UTF-8").status_code == 200


WRONG_AUTHORIZATIONS = ["Bearer wrong", f"Basic {WRITE_KEY}", "Bearer", "Bearer  ", "\x00"]


@pytest.mark.parametrize("headers", [{}, {"X-Write-Key": "wrong"}, *({"Authorization": text} for text in WRONG_AUTHORIZATIONS)])
def test_nobody_else_may(client, headers):
    response = send(client, headers=headers)
    assert response.status_code == 401
    assert error_of(response)["code"] == "unauthorized"


# --- what an answer says


def test_saved_plus_rejected_is_sent_and_each_rejection_has_its_index(client):
    body = send(client, {"app": "web", "events": [PAGE, {"type": "page"}, 5, PAGE]}).get_json()
    assert body["saved"] == 2
    assert [row["index"] for row in body["rejected"]] == [1, 2]
    assert body["rejected"][0] == {"index": 1, "code": "bad_request", "message": "name: Missing data for required field."}


def test_events_that_are_known_already_count_as_saved_and_as_duplicates(client):
    batch = {"app": "web", "events": [{**PAGE, "eventId": "dup-1"}, PAGE]}
    assert send(client, batch).get_json() == {"ok": True, "saved": 2, "storage": "memory"}
    assert send(client, batch).get_json() == {"ok": True, "saved": 2, "duplicates": 1, "storage": "memory"}


@pytest.mark.parametrize("body", [{}, {"app": "web"}, {"app": "web", "sdk": "2.0"}, {"events": []}])
def test_no_events_are_an_empty_success(client, body):
    assert send(client, body).get_json() == {"ok": True, "saved": 0}


@pytest.mark.parametrize("path", ["/api/telemetry/batch", "/api/perf/batch"])
@pytest.mark.parametrize("body", [{"app": "web", "event": [PAGE]}, {"app": "web", "items": []}, {"app": "web", **PAGE}, {"events": None}])
def test_events_that_come_under_another_name_are_refused_and_not_taken_for_saved(client, body, path):
    response = send(client, body, path)
    error = error_of(response)
    assert (response.status_code, error["code"], [row["path"] for row in error["details"]]) == (400, "bad_request", ["events"])


def test_a_batch_of_only_bad_events_is_answered_and_not_an_error(client):
    response = send(client, {"app": "web", "events": [1]})
    assert response.status_code == 200
    assert response.get_json()["saved"] == 0


def test_an_event_without_a_type_is_perf_on_the_perf_route_alone(client):
    batch = {"app": "web", "events": [{"name": "lcp"}]}
    assert send(client, batch, "/api/perf/batch").get_json()["saved"] == 1
    assert send(client, batch).get_json()["saved"] == 0


# --- how a body may come


JSON_OR_TEXT = ["application/json", "application/json; charset=utf-8", "text/plain", "text/plain;charset=UTF-8", ""]


@pytest.mark.parametrize("content_type", JSON_OR_TEXT)
def test_json_may_come_as_json_or_as_text(client, content_type):
    assert send(client, content_type=content_type).get_json()["saved"] == 1


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/png"])
def test_any_other_content_type_is_refused(client, content_type):
    response = send(client, content_type=content_type)
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def test_a_gzip_body_is_inflated(client):
    assert send(client, gzip.compress(json.dumps(BATCH).encode()), headers={**KEY, "Content-Encoding": "gzip"}).get_json()["saved"] == 1


@pytest.mark.parametrize("raw", [b"", b"not gzip", gzip.compress(b'{"events":[]}')[:-9], zlib.compress(b"{}")],
                         ids=["empty", "text", "cut off", "zlib"])  # fmt: skip
def test_a_body_that_only_claims_to_be_gzip_is_a_bad_request(client, raw):
    response = send(client, raw, headers={**KEY, "Content-Encoding": "gzip"})
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_an_encoding_nobody_knows_is_refused(client):
    assert send(client, headers={**KEY, "Content-Encoding": "br"}).status_code == 415


def batch_of(size):
    head, tail = b'{"app":"web","events":[],"pad":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def test_a_body_may_have_512000_bytes_and_not_one_more(client):
    assert send(client, batch_of(HUGE)).status_code == 200
    response = send(client, batch_of(HUGE + 1))
    assert (response.status_code, error_of(response)["code"]) == (413, "payload_too_large")


def test_the_same_holds_after_inflating(client):
    headers = {**KEY, "Content-Encoding": "gzip"}
    assert send(client, gzip.compress(batch_of(HUGE)), headers=headers).status_code == 200
    assert send(client, gzip.compress(batch_of(HUGE + 1)), headers=headers).status_code == 413


def test_a_gzip_bomb_costs_no_more_than_the_limit(client):
    bomb = gzip.compress(b"x" * 200_000_000)
    assert len(bomb) < HUGE
    assert send(client, bomb, headers={**KEY, "Content-Encoding": "gzip"}).status_code == 413


def test_a_thousand_events_fit_and_one_more_does_not(client):
    assert send(client, {"app": "web", "events": [PAGE] * 1000}).get_json()["saved"] == 1000
    assert send(client, {"app": "web", "events": [PAGE] * 1001}).status_code == 413


NOT_JSON = [b"", b"{", b"{'app':1}", b"\xff\xfe", b'{"a":NaN}', b"[" * 50_000]
NO_BATCH = [b"[]", b"null", b"5", b'"text"', b'{"events":{}}', b'{"events":null}']


@pytest.mark.parametrize("raw", NOT_JSON + NO_BATCH)
def test_a_body_that_is_no_batch_is_a_bad_request(client, raw):
    response = send(client, raw)
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_a_batch_of_far_too_many_events_is_refused_before_anything_is_done_for_each(client, monkeypatch):
    monkeypatch.setattr("app.telemetry.batch.ENVELOPE.load", None)
    body = gzip.compress(json.dumps({"app": 5, "events": [0] * 200_000}).encode())
    assert send(client, body, headers={**KEY, "Content-Encoding": "gzip"}).status_code == 413


def test_a_gzip_of_very_many_members_is_a_bad_request(client):
    response = send(client, gzip.compress(b"") * 1000, headers={**KEY, "Content-Encoding": "gzip"})
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_half_an_emoji_costs_a_character_and_not_the_batch(client):
    raw = b'{"app":"web","events":[{"type":"event","name":"cut \\ud83d"},{"type":"event","name":"whole \\ud83d\\ude00"}]}'
    assert send(client, raw).get_json()["saved"] == 2


def test_when_nothing_can_be_stored_the_answer_is_503_with_retry_after(tmp_path):
    class FullSink:
        def write(self, events):
            raise StorageUnavailable("no room", code="storage_full")

    response = send(make_app(tmp_path, parts={"sink": FullSink()}).test_client())
    error = error_of(response)
    assert (response.status_code, error["code"], error["retryable"]) == (503, "storage_full", True)
    assert error["retryAfterMs"] == 1000 * int(response.headers["Retry-After"])


# --- any batch at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(["type", "name", "ts", "props", "eventId", "app", "userId", "user", "release", "extra"])
likely = st.sampled_from(["page", "event", "perf", "/home", 1_760_000_000_000, "2025-10-09T00:00:00Z", {"a": 1}, None])
events = st.one_of(json_values, st.dictionaries(field_names, likely | json_values, max_size=6))
envelopes = st.dictionaries(st.sampled_from(["app", "release", "userId", "user", "sentAt", "env"]), likely | json_values, max_size=3)
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(envelope=envelopes, sent=st.lists(events, max_size=6))
def test_for_any_events_saved_plus_rejected_is_sent_and_nothing_is_a_server_error(client, envelope, sent):
    response = send(client, {"app": "web", **envelope, "events": sent})
    if response.status_code == 200:
        body = response.get_json()
        assert body["saved"] + len(body.get("rejected", [])) == len(sent)
        assert all(0 <= row["index"] < len(sent) and row["message"] for row in body.get("rejected", []))
    else:
        assert response.status_code == 400
        error_of(response)


@QUICK
@given(raw=st.binary(max_size=200))
def test_for_any_bytes_there_is_an_answer_and_never_a_server_error(client, raw):
    assert send(client, raw).status_code in (200, 400)


@QUICK
@given(body=json_values)
def test_for_any_json_there_is_an_answer_and_never_a_server_error(client, body):
    assert send(client, body).status_code in (200, 400)


# --- what was adjusted


def test_what_was_adjusted_is_named_beside_what_was_rejected(client):
    events = [PAGE, {**PAGE, "ts": 1_760_000_000, "release": ""}, {"type": "page"}]
    answer = send(client, {"app": "web", "userId": "", "sentAt": "-1", "events": events}).get_json()
    assert (answer["saved"], [row["index"] for row in answer["rejected"]]) == (2, [2])
    assert [row["path"] for row in answer["adjusted"]] == ["userId", "sentAt", "events.1.release", "events.1.ts"]
    assert all(row["message"].endswith(".") for row in answer["adjusted"])


def test_nothing_is_named_where_nothing_was_adjusted(client):
    assert "adjusted" not in send(client).get_json()


def test_of_many_adjustments_the_first_hundred_are_named_and_the_rest_counted(client):
    answer = send(client, {"app": "web", "events": [{**PAGE, "userId": ""}] * 250}).get_json()
    assert (answer["saved"], len(answer["adjusted"])) == (250, 101)
    assert answer["adjusted"][-1] == {"path": "", "message": "And 150 more."}


@pytest.mark.parametrize("props", [b'{"a":' + b"[" * 1023 + b"]" * 1023 + b"}", b'{"a":1e309}', b'{"a":NaN}'], ids=["deep", "1e309", "NaN"])
def test_ninety_nine_good_events_beside_one_that_cannot_be_read_are_saved(client, props):
    good = json.dumps(PAGE).encode()
    body = b'{"app":"web","events":[%b]}' % b",".join([*[good] * 50, b'{"type":"page","name":"n","props":%b}' % props, *[good] * 49])
    answer = send(client, body).get_json()
    assert (answer["saved"], [row["index"] for row in answer["rejected"]]) == (99, [50])
