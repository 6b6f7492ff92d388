"""Pages of other origins: what a browser asks beforehand, and what it lets them read."""

import pytest

from app.settings import SettingsError
from tests.apps import WRITE_KEY, bearer, make_app

PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,if-match,x-write-key"}
EXPOSED = {"ETag", "Retry-After", "X-Request-Id"}


@pytest.fixture
def client(tmp_path):
    return make_app(tmp_path).test_client()


@pytest.fixture
def strict(tmp_path):
    """Two origins and the subdomains of a third."""
    return make_app(tmp_path, cors_origins="https://app.test,http://localhost:3000,https://*.many.test").test_client()


def words(answer, header):
    return {word.strip() for word in answer.headers[header].split(",")}


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/flags"), ("POST", "/api/telemetry/batch")])
def test_everybody_may_read_by_default_and_nobody_sends_cookies(client, method, path):
    answer = client.open(path, method=method, json={"events": []}, headers={"Origin": "https://any.test", "X-Write-Key": WRITE_KEY})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert words(answer, "Access-Control-Expose-Headers") == EXPOSED


def test_a_preflight_allows_our_methods_and_headers_without_a_credential(client):
    answer = client.options("/api/flags/x", headers={"Origin": "https://any.test", **PREFLIGHT})
    assert answer.status_code == 200
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= words(answer, "Access-Control-Allow-Methods")
    allowed = {word.lower() for word in words(answer, "Access-Control-Allow-Headers")}
    assert {"authorization", "if-match", "x-write-key"} <= allowed
    assert int(answer.headers["Access-Control-Max-Age"]) > 0


SENT = ["authorization", "content-type", "content-encoding", "if-match", "if-none-match", "x-request-id", "x-write-key"]


@pytest.mark.parametrize("header", SENT)
def test_every_header_that_a_client_of_ours_sends_may_be_sent(client, header):
    asked = {"Origin": "https://any.test", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": header}
    assert header in client.options("/api/telemetry/batch", headers=asked).headers["Access-Control-Allow-Headers"].lower()


TRACING = ["traceparent", "tracestate", "baggage", "sentry-trace", "x-datadog-trace-id", "x-datadog-sampling-priority", "b3",
           "X-B3-TraceId", "request-id", "newrelic", "elastic-apm-traceparent", "uber-trace-id", "x-amzn-trace-id"]  # fmt: skip


def allowed(client, *headers):
    """What a preflight for these headers allows."""
    asked = {"Origin": "https://any.test", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join(headers)}
    answer = client.options("/api/telemetry/batch", headers=asked).headers.get("Access-Control-Allow-Headers", "")
    return {word.strip() for word in answer.split(",")} - {""}


def test_a_page_that_is_traced_may_send_what_its_tool_adds(client):
    assert allowed(client, *TRACING, "content-type") == {*TRACING, "content-type"}


@pytest.mark.parametrize("header", ["x-tenant", "x-datadog", "traceparent-2", "xtraceparent", "x-datadog-a,b c", "cookie"])
def test_other_headers_are_not_allowed(client, header):
    assert header not in allowed(client, header)


def test_a_setting_allows_more_by_name_or_by_beginning(tmp_path):
    client = make_app(tmp_path, cors_allow_headers="X-Tenant,x-corp-*").test_client()
    assert allowed(client, "x-tenant", "x-corp-1", "x-tenant-2", "traceparent") == {"x-tenant", "x-corp-1", "traceparent"}
    everything = make_app(tmp_path, cors_allow_headers="*").test_client()
    assert allowed(everything, "x-anything") == {"x-anything"}


@pytest.mark.parametrize("value", ["X Tenant", "X-Tenant:", "*-x", "X-\u00e4"])
def test_what_is_no_header_name_is_refused_at_the_start(tmp_path, value):
    with pytest.raises(SettingsError, match="CORS_ALLOW_HEADERS must be a list of header names"):
        make_app(tmp_path, cors_allow_headers=value)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/api/flags", 200),
        ("POST", "/api/telemetry/batch", 200),
        ("OPTIONS", "/api/flags", 200),
    ],
)
@pytest.mark.parametrize("origin", [None, "https://app.test", "https://evil.test"])
def test_where_origins_are_listed_every_answer_says_that_it_depends_on_the_origin(strict, method, path, status, origin):
    headers = {"X-Write-Key": WRITE_KEY} | ({"Origin": origin} if origin else {})
    answer = strict.open(path, method=method, headers=headers, json={"events": []} if method == "POST" else None)
    assert answer.status_code == status
    assert "Origin" in words(answer, "Vary")


def test_where_everybody_may_call_caches_need_not_keep_origins_apart(client):
    assert "Origin" not in client.get("/livez").headers.get("Vary", "")


@pytest.mark.parametrize(("listed", "origin", "may"), [("file://", "file://", True), ("file://", "null", True), ("null", "null", True),
                                                       ("null", "file://", False), ("https://app.test", "null", False)])  # fmt: skip
def test_pages_from_a_disk_or_in_an_app_may_be_listed(tmp_path, listed, origin, may):
    client = make_app(tmp_path, cors_origins=f"https://other.test,{listed}").test_client()
    batch = client.post("/api/telemetry/batch", json={"events": []}, headers={"Origin": origin, "X-Write-Key": WRITE_KEY})
    preflight = client.options("/api/flags", headers={"Origin": origin, **PREFLIGHT})
    for answer in (client.get("/livez", headers={"Origin": origin}), preflight, batch):
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if may else None)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/api/flags", {}, 401),
        ("POST", "/api/flags", bearer("u1"), 403),
        ("DELETE", "/api/flags", {}, 405),
        ("POST", "/api/telemetry/batch", {"X-Write-Key": WRITE_KEY, "Content-Type": "text/csv"}, 415),
        ("POST", "/api/telemetry/batch", {"X-Write-Key": WRITE_KEY}, 400),
    ],
)
def test_an_error_can_be_read_across_origins_too(strict, method, path, headers, status):
    answer = strict.open(path, method=method, headers={"Origin": "https://app.test", **headers})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.test"
    assert words(answer, "Access-Control-Expose-Headers") == EXPOSED


@pytest.mark.parametrize("origin", ["https://app.test", "http://localhost:3000", "https://a.many.test", "https://a.b.many.test"])
def test_a_configured_origin_is_named_and_caches_keep_origins_apart(strict, origin):
    for answer in (strict.get("/livez", headers={"Origin": origin}), strict.options("/api/flags", headers={"Origin": origin, **PREFLIGHT})):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "http://app.test", "https://app.test.evil.test", "https://app.test:444", "https://many.test",
     "https://evilmany.test", "https://a.many.test.evil.test", "null", ""],
)  # fmt: skip
def test_any_other_origin_is_told_nothing(strict, origin):
    for answer in (strict.get("/livez", headers={"Origin": origin}), strict.options("/api/flags", headers={"Origin": origin, **PREFLIGHT})):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_who_is_no_browser_needs_no_origin(strict):
    assert strict.get("/livez").status_code == 200


def test_a_refusal_by_the_rate_limit_can_be_read_across_origins(tmp_path):
    client = make_app(tmp_path, cors_origins="https://app.test", rate_limit_http="1/hour").test_client()
    headers = {"Origin": "https://app.test", "X-Write-Key": WRITE_KEY}
    answers = [client.get("/api/flags", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["Access-Control-Allow-Origin"] == "https://app.test"
    assert "Retry-After" in words(answers[1], "Access-Control-Expose-Headers")


# The socket's door.


def handshake(client, **headers):
    return client.get("/socket.io/?EIO=4&transport=polling", headers=headers)


@pytest.mark.parametrize("origin", ["https://app.test", "https://a.many.test"])
def test_the_socket_lets_the_same_origins_in(strict, origin):
    answer = handshake(strict, Origin=origin)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("origin", ["https://evil.test", "https://a.many.test.evil.test", "null"])
def test_the_socket_refuses_any_other_origin(strict, origin):
    assert handshake(strict, Origin=origin).status_code == 400


def test_the_socket_is_open_to_who_is_no_browser_and_by_default_to_everybody(strict, client):
    assert handshake(strict).status_code == 200
    assert handshake(client, Origin="https://any.test").status_code == 200
