"""GET /api/telemetry/stats, with MongoDB and without."""

import json

import pytest

from app.json_values import to_iso
from app.telemetry.stats.summary import MAX_BUCKETS
from tests.apps import NOW, WRITE_KEY, Clock, bearer, error_of, make_app

ADMIN = bearer("boss", "admin")
KEY = {"X-Write-Key": WRITE_KEY}
MINUTE = 60_000
AT = NOW - NOW % MINUTE


@pytest.fixture(params=["embedded", "mongo"])
def app(request, tmp_path):
    changes = {"mongo_uri": request.getfixturevalue("mongo_uri"), "mongo_timeout_ms": 5000} if request.param == "mongo" else {}
    return make_app(tmp_path, parts={"clock": Clock()}, **changes)


@pytest.fixture
def client(app):
    return app.test_client()


def save(app, *events, of="web", **envelope):
    body = {"app": of, **envelope, "events": list(events)}
    answer = app.test_client().post("/api/telemetry/batch", json=body, headers=KEY).get_json()
    assert answer["saved"] == len(events)
    app.extensions["switchyard"].telemetry_rollups.flush()


def event(type_="page", name="/", ts=NOW, **props):
    return {"type": type_, "name": name, "ts": ts, "props": props}


def stats(app, of="web", **query):
    response = app.test_client().get("/api/telemetry/stats", query_string={"app": of, **query}, headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.get_json()


def test_without_events_there_is_a_bucket_for_every_minute_of_the_last_hour(app):
    answer = stats(app)
    nothing = {
        "count": 0, "byType": {}, "byName": [], "other": 0, "errorRate": None,
        "api": {"count": 0, "failed": 0, "failureRate": None}, "values": [],
    }  # fmt: skip
    assert (answer["ok"], answer["app"], answer["bucketMs"], answer["to"]) == (True, "web", MINUTE, to_iso(AT + MINUTE))
    assert answer["totals"] == nothing
    assert len(answer["buckets"]) == 61
    assert answer["buckets"][-1] == {"at": to_iso(AT), **nothing}


def test_events_are_counted_by_type_and_by_name(app):
    save(app, event(), event(), event(name="/cart"), event("error", "TypeError"))
    totals = stats(app)["totals"]
    assert (totals["count"], totals["byType"], totals["errorRate"]) == (4, {"page": 3, "error": 1}, 0.25)
    assert totals["byName"][0] == {"type": "page", "name": "/", "count": 2}
    assert {(row["name"], row["count"]) for row in totals["byName"]} == {("/", 2), ("/cart", 1), ("TypeError", 1)}


def test_an_event_counts_in_the_minute_of_its_own_time_however_late_it_arrives(app):
    save(app, event(ts=AT - 30 * MINUTE), event(ts=AT + 1), event(ts=AT + 2))
    buckets = {bucket["at"]: bucket["count"] for bucket in stats(app)["buckets"] if bucket["count"]}
    assert buckets == {to_iso(AT - 30 * MINUTE): 1, to_iso(AT): 2}


def test_api_events_have_a_failure_rate(app):
    answers = [{"status": 200}, {"status": 404}, {"status": 0}, {"ok": False, "status": 200}, {"ok": True, "status": 404}, {}, {"ok": "no"}]
    save(app, *(event("api", "GET /x", **props) for props in answers), event())
    assert stats(app)["totals"]["api"] == {"count": 7, "failed": 3, "failureRate": round(3 / 7, 6)}


def test_perf_values_have_percentiles_within_the_stated_error(app):
    save(app, *(event("perf", "lcp", value=float(n)) for n in range(1, 101)), event("perf", "lcp", value="fast"))
    save(app, event("perf", "ttfb", ms=7))
    lcp, ttfb = stats(app)["totals"]["values"]
    assert (lcp["type"], lcp["name"], lcp["count"]) == ("perf", "lcp", 100)
    assert [lcp["p50"], lcp["p75"], lcp["p95"], lcp["p99"]] == pytest.approx([50, 75, 95, 99], rel=0.021)
    assert (ttfb["name"], ttfb["count"], ttfb["p99"]) == ("ttfb", 1, pytest.approx(7, rel=0.021))


def test_names_beyond_top_count_as_other_and_every_bucket_lists_the_same_names(app):
    save(app, *[event(name="a")] * 3, *[event(name="b", ts=NOW - 5 * MINUTE)] * 2, event(name="c"))
    answer = stats(app, top=2)
    assert [(row["name"], row["count"]) for row in answer["totals"]["byName"]] == [("a", 3), ("b", 2)]
    assert answer["totals"]["other"] == 1
    last = answer["buckets"][-1]
    assert ([row["name"] for row in last["byName"]], last["other"], last["count"]) == (["a"], 1, 4)


@pytest.mark.parametrize("bucket, buckets", [("1m", 1441), ("5m", 289), ("15m", 97), ("1h", 25), ("6h", 5), ("1d", 2)])
def test_buckets_of_every_width_add_up_to_the_same_total(app, bucket, buckets):
    save(app, event(ts=NOW - 3 * 3_600_000), event(ts=NOW - 60 * MINUTE), event())
    answer = stats(app, bucket=bucket, **{"from": NOW - 86_400_000})
    assert sum(row["count"] for row in answer["buckets"]) == answer["totals"]["count"] == 3
    assert len(answer["buckets"]) == buckets


def test_a_range_is_widened_to_whole_buckets_and_the_answer_shows_the_wider_range(app):
    save(app, event(ts=NOW - 60 * MINUTE))
    answer = stats(app, bucket="1d", **{"from": "2025-10-09T08:53:00Z", "to": NOW})
    assert (answer["from"], answer["to"]) == ("2025-10-09T00:00:00.000Z", "2025-10-10T00:00:00.000Z")
    assert answer["totals"]["count"] == 1


def test_a_query_counts_only_the_events_of_its_app_and_env(app):
    save(app, event(), env="prod")
    save(app, event(), event(), env="test")
    save(app, event())
    save(app, event(), of="shop")
    assert [stats(app, **query)["totals"]["count"] for query in ({}, {"env": "prod"}, {"env": "none"}, {"of": "shop"})] == [4, 1, 0, 1]


def test_an_event_that_is_sent_again_is_counted_once(app):
    for _ in range(3):
        save(app, {**event(), "eventId": "same"}, event(name="fresh"))
    assert stats(app)["totals"]["byName"] == [
        {"type": "page", "name": "fresh", "count": 3},
        {"type": "page", "name": "/", "count": 1},
    ]


@pytest.mark.parametrize(
    "query, path",
    [
        ("", "app"), ("app=", "app"), ("app=" + "x" * 129, "app"), ("app=a&env=", "env"), ("app=a&from=yesterday", "from"),
        ("app=a&to=-1", "to"), ("app=a&bucket=2m", "bucket"), ("app=a&bucket=", "bucket"), ("app=a&top=-1", "top"), ("app=a&top=51", "top"),
        ("app=a&top=x", "top"), (f"app=a&from={NOW}&to={NOW}", "from"), ("app=a&to=0", "to"), ("app=a&from=9999-01-01", "from"),
        ("app=a&from=0&bucket=1d", "bucket"), (f"app=a&from={AT - MAX_BUCKETS * MINUTE}&to={AT + 1}&bucket=1m", "bucket"),
        ("app=a&from=9999-12-31&to=9999-12-31T23:59:59Z", "to"), ("app=a&to=9999-12-31T23:59:59Z", "to"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_a_bad_request_that_names_the_parameter(client, query, path):
    response = client.get(f"/api/telemetry/stats?{query}", headers=ADMIN)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "bad_request")
    assert [row["path"] for row in error["details"]] == [path]


def test_the_largest_allowed_number_of_buckets_is_answered(app):
    answer = stats(app, bucket="1m", **{"from": AT - MAX_BUCKETS * MINUTE, "to": AT})
    assert len(answer["buckets"]) == MAX_BUCKETS


@pytest.mark.parametrize("headers, status", [({}, 401), (KEY, 403), (bearer("u1"), 403), (bearer("s", "service"), 403)])
def test_only_an_admin_reads_statistics(client, headers, status):
    response = client.get("/api/telemetry/stats?app=web", headers=headers)
    assert response.status_code == status
    error_of(response)


def test_the_contract_has_the_route_with_its_parameters(client):
    operation = client.get("/openapi.json").get_json()["paths"]["/api/telemetry/stats"]["get"]
    assert {parameter["name"] for parameter in operation["parameters"]} >= {"app", "env", "from", "to", "bucket", "top"}
    assert "Stats" in json.dumps(operation["responses"]["200"])


def test_while_mongo_is_away_statistics_are_unavailable(tmp_path):
    from tests.servers.ports import free_port

    client = make_app(tmp_path, mongo_uri=f"mongodb://127.0.0.1:{free_port()}/x", mongo_timeout_ms=200).test_client()
    response = client.get("/api/telemetry/stats?app=web", headers=ADMIN)
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
