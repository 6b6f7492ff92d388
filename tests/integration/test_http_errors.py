"""Every answer has a request id, and every error one shape, whatever was asked and whatever went wrong."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from app.errors import ApiError
from app.http import request_id
from app.logs.sampling import SampledLog
from tests.apps import WRITE_KEY, bearer, error_of, make_app

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """One application for this module; what is asked of it here changes nothing."""
    app = make_app(tmp_path_factory.mktemp("app"), rate_limit_http="1000000/second")

    @app.get("/surprise")
    def surprise():
        raise RuntimeError("mongodb://user:hunter2@host")

    @app.get("/refused/<code>")
    def refused(code):
        raise ApiError(code, retry_after_ms=1500 if code == "rate_limited" else None)

    @app.get("/abort/<int:status>")
    def abort(status):
        error = HTTPException("<b>words of a library</b>")
        error.code = status
        raise error

    return app


@pytest.fixture(scope="module")
def client(app):
    return app.test_client()


def test_an_unknown_address_is_404(client):
    answer = client.get("/nowhere")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


def test_a_method_that_is_not_offered_is_405_and_says_which_are(client):
    answer = client.delete("/api/flags")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_a_method_that_nobody_knows_is_405_too(client):
    assert error_of(client.open("/api/flags", method="BREW"))["code"] == "method_not_allowed"


def test_a_body_that_is_too_large_is_413(client):
    answer = client.post("/api/flags", data=b"x" * 600_000, headers={**bearer("root", "admin"), **JSON})
    assert (answer.status_code, error_of(answer)["code"]) == (413, "payload_too_large")


def test_a_content_type_that_is_not_understood_is_415(client):
    answer = client.post("/api/telemetry/batch", data="a,b", headers={**bearer("u1"), "Content-Type": "text/csv"})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")


ROUTES_WITH_JSON = [
    ("POST", "/api/flags"), ("PUT", "/api/flags/a"), ("PATCH", "/api/flags/a"), ("PUT", "/api/telemetry/config/web"),
    ("POST", "/api/telemetry/batch"), ("POST", "/api/realtime/publish"), ("POST", "/api/realtime/emit"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES_WITH_JSON)
@pytest.mark.parametrize("content_type", ["text/xml", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_says_it_is_no_json_is_415_and_says_what_to_send(client, method, path, content_type):
    answer = client.open(path, method=method, data="{}", headers={**bearer("root", "admin"), "Content-Type": content_type})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in error_of(answer)["message"]


@pytest.mark.parametrize("content_type", ["", "application/json", "Application/JSON; charset=UTF-8", "application/merge-patch+json"])
def test_a_body_that_says_it_is_json_or_nothing_is_read(client, content_type):
    headers = {**bearer("root", "admin"), **({"Content-Type": content_type} if content_type else {})}
    answer = client.patch("/api/flags/not-there", data="{}", headers=headers)
    assert error_of(answer)["code"] == "not_found"


@pytest.mark.parametrize(("method", "path"), ROUTES_WITH_JSON)
def test_a_body_that_is_a_list_is_told_to_be_an_object(client, method, path):
    answer = client.open(path, method=method, json=[{}], headers=bearer("root", "admin"))
    assert error_of(answer)["message"] == "The body must be a JSON object."


@pytest.mark.parametrize("path", ["/api/flags", "/api/telemetry/batch", "/api/realtime/publish", "/api/realtime/emit"])
@pytest.mark.parametrize("body", ["{", "", "[]", "7", "null", '"text"', b"\xff\xfe", "[" * 10_000])
def test_a_body_of_the_wrong_shape_is_400(client, path, body):
    answer = client.post(path, data=body, headers={**bearer("root", "admin"), **JSON})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "bad_request")


def test_a_body_of_the_wrong_shape_is_named_mistake_by_mistake(client):
    answer = client.post("/api/flags", json={"key": 7, "rules": {"percent": "half"}}, headers=bearer("root", "admin"))
    details = error_of(answer)["details"]
    assert {"key", "rules.percent"} <= {row["path"] for row in details}
    assert all(row["message"] for row in details)


def test_a_query_of_the_wrong_shape_is_400_with_its_path(client):
    answer = client.get("/api/telemetry/events?limit=many", headers=bearer("root", "admin"))
    assert answer.status_code == 400
    assert [row["path"] for row in error_of(answer)["details"]] == ["limit"]


@pytest.mark.parametrize(("path", "name"), [("/api/telemetry/events?typ=page", "typ"), ("/api/telemetry/stats?app=web&form=1", "form")])
def test_a_parameter_that_does_not_exist_is_400_with_its_name_where_an_administrator_filters(client, path, name):
    answer = client.get(path, headers=bearer("root", "admin"))
    assert answer.status_code == 400
    assert error_of(answer)["details"] == [{"path": name, "message": "There is no such parameter."}]


@pytest.mark.parametrize("path", ["/api/telemetry/events?", "/api/telemetry/stats?app=web&", "/api/flags?"])
def test_a_write_key_in_the_address_is_no_unknown_parameter(client, path):
    assert client.get(f"{path}writeKey={WRITE_KEY}", headers=bearer("root", "admin")).status_code == 200


def test_nobody_is_401_and_a_user_without_the_role_is_403(client):
    nobody, user = client.post("/api/flags", json={}), client.post("/api/flags", json={}, headers=bearer("u1"))
    assert (nobody.status_code, error_of(nobody)["code"], nobody.headers["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")
    assert (user.status_code, error_of(user)["code"]) == (403, "forbidden")


def test_a_surprise_is_500_without_a_word_of_what_it_was(client):
    answer = client.get("/surprise")
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["retryable"]) == (500, "internal", True)
    assert "hunter2" not in answer.text and "RuntimeError" not in answer.text


@pytest.mark.parametrize("status", [400, 406, 408, 410, 414, 418, 422, 428, 431, 451, 500, 501, 502, 504, 599])
def test_whatever_a_library_aborts_with_has_our_shape_and_none_of_its_words(client, status):
    answer = client.get(f"/abort/{status}")
    error = error_of(answer)
    assert answer.status_code // 100 == status // 100
    assert "library" not in error["message"]
    assert answer.content_type == "application/json"


@pytest.mark.parametrize(("code", "seconds"), [("rate_limited", 2), ("limit_exceeded", 1), ("unavailable", 1), ("storage_full", 1)])
def test_429_and_503_say_in_whole_seconds_when_to_come_back(client, code, seconds):
    assert client.get(f"/refused/{code}").headers["Retry-After"] == str(seconds)


def test_head_answers_as_get_without_a_body_and_options_says_what_is_offered(client):
    head, options = client.head("/livez"), client.options("/livez")
    assert (head.status_code, head.data) == (200, b"")
    assert options.status_code == 200 and "GET" in options.headers["Allow"]


# Request ids.


def test_an_answer_has_a_request_id_of_its_own(client):
    first, second = (client.get("/livez").headers["X-Request-Id"] for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{32}", first) and first != second


@pytest.mark.parametrize("given_id", ["abc-123", "a" * 128, "0af7651916cd43dd8448eb211c80319c", "trace:1.2_3"])
def test_the_callers_request_id_is_kept_where_it_is_a_sane_one(client, given_id):
    assert client.get("/nowhere", headers={"X-Request-Id": given_id}).headers["X-Request-Id"] == given_id


@pytest.mark.parametrize("given_id", ["", "a" * 129, "a b", "a\tb", "<script>", "ü", '"}'])
def test_any_other_request_id_is_replaced(client, given_id):
    assert client.get("/livez", headers={"X-Request-Id": given_id}).headers["X-Request-Id"] != given_id


# Whatever comes.

PATHS = ["/", "/api/flags", "/api/flags/x", "/api/telemetry/batch", "/api/telemetry/events", "/api/telemetry/config", "/healthz",
         "/metrics", "/api/realtime/publish", "/ofrep/v1/evaluate/flags", "/openapi.json"]  # fmt: skip
QUERIES = [b"writeKey=wk_of_the_tests_that_is_long_enough", b"writeKey=%ff", b"limit=1e400", b"cursor=%00", b"app=" + b"x" * 9000]
latin = st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n\x00"), max_size=60)
NAMES = ["Authorization", "X-Write-Key", "X-Request-Id", "Origin", "If-Match", "If-None-Match", "Content-Type", "Content-Encoding",
         "Accept", "X-Forwarded-For", "Host", "Range", "Cookie", "Expect", "Access-Control-Request-Headers"]  # fmt: skip


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"]),
    path=st.sampled_from(PATHS) | st.text(st.characters(codec="utf-8", exclude_characters="?"), max_size=30).map(lambda text: "/" + text),
    query=st.binary(max_size=40) | st.sampled_from(QUERIES),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), latin), max_size=4),
    body=st.binary(max_size=60),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_a_surprise(client, method, path, query, headers, body):
    answer = client.open(path, method=method, query_string=query.decode("latin-1"), headers=headers, data=body)
    assert answer.status_code < 500
    assert answer.headers["X-Request-Id"]
    if answer.status_code >= 400 and method != "HEAD":
        error_of(answer)


@pytest.mark.parametrize("header", ["Authorization", "X-Write-Key"])
@pytest.mark.parametrize("value", ["x" * 30_000, "Bearer " + "x" * 30_000, "Bearer \xff", "Bearer a, Bearer b", "Bearer", "Digest x"])
def test_a_weird_credential_is_401(client, header, value):
    assert error_of(client.get("/api/flags", headers={header: value}))["code"] == "unauthorized"


def test_a_wrong_credential_is_401_even_where_none_is_needed_to_see_flags_but_open_pages_stay_open(client):
    wrong = {"Authorization": "Bearer wrong"}
    assert client.get("/api/flags", headers=wrong).status_code == 401
    assert client.get("/healthz", headers=wrong).status_code == 200


# What is counted.


def test_invented_methods_and_addresses_share_one_row_of_the_metrics(client, app):
    for number in range(20):
        client.open(f"/nowhere/{number}", method=f"BREW{number}")
    text = app.extensions["switchyard"].metrics.render().decode()
    assert "BREW" not in text and "nowhere" not in text
    assert re.search(r'http_requests_total\{method="other",route="unknown",status="404"\} \d', text)


def test_an_answer_is_counted_under_its_route_and_not_under_its_address(client, app):
    client.get("/api/flags/some-key", headers=bearer("root", "admin"))
    text = app.extensions["switchyard"].metrics.render().decode()
    assert 'route="/api/flags/<key>"' in text and "some-key" not in text


# The log of what was refused.


def refused_lines(client, capfd, path, count, **options):
    capfd.readouterr()
    for _ in range(count):
        client.open(path, **options)
    text = "".join(capfd.readouterr())
    return [line for line in text.splitlines() if "request_refused" in line]


@pytest.mark.parametrize(
    ("path", "options"),
    [("/nowhere/%s", {}), ("/api/flags", {"headers": {"X-Write-Key": "wk_wrong"}}), ("/livez", {"method": "DELETE"})],
)
def test_a_stranger_who_is_refused_again_and_again_fills_no_log(tmp_path, capfd, monkeypatch, path, options):
    monkeypatch.setattr(request_id, "sampled", SampledLog(request_id.log, allowed=5))
    client = make_app(tmp_path, rate_limit_http="100000/second").test_client()
    assert len(refused_lines(client, capfd, path.replace("%s", "x"), 300, **options)) == 5
    assert len(refused_lines(client, capfd, "/api/telemetry/stats", 1)) == 1  # another route's line is not hidden by it


def test_the_next_line_says_how_many_were_left_out(tmp_path, capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(request_id, "sampled", SampledLog(request_id.log, allowed=5, now=lambda: now[0]))
    client = make_app(tmp_path, rate_limit_http="100000/second").test_client()
    refused_lines(client, capfd, "/nowhere", 105)
    now[0] = 11.0
    (line,) = refused_lines(client, capfd, "/nowhere", 1)
    assert "suppressed=100" in line or '"suppressed": 100' in line or '"suppressed":100' in line
