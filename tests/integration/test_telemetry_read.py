"""Reading events and the SDKs' configuration back over HTTP, with MongoDB and without."""

import pytest

from tests.apps import WRITE_KEY, bearer, error_of, make_app

ADMIN = bearer("boss", "admin")
KEY = {"X-Write-Key": WRITE_KEY}


@pytest.fixture(params=["embedded", "mongo"])
def client(request, tmp_path):
    changes = {"mongo_uri": request.getfixturevalue("mongo_uri"), "mongo_timeout_ms": 5000} if request.param == "mongo" else {}
    return make_app(tmp_path, **changes).test_client()


def save(client, *events, app="web"):
    answer = client.post("/api/telemetry/batch", json={"app": app, "events": list(events)}, headers=KEY).get_json()
    assert answer["saved"] == len(events)
    return answer


def read(client, **query):
    response = client.get("/api/telemetry/events", query_string=query, headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.get_json()


def test_what_was_saved_can_be_seen_again(client):
    answer = save(client, {"type": "page", "name": "/home", "ts": "2026-01-02T03:04:05.006Z", "props": {"a": [1, None]}, "userId": 7})
    assert answer["storage"] in ("mongo", "spool")
    (event,) = read(client)["events"]
    assert {name: event[name] for name in ("app", "type", "name", "ts", "props", "userId")} == {
        "app": "web", "type": "page", "name": "/home", "ts": "2026-01-02T03:04:05.006Z", "props": {"a": [1, None]}, "userId": "7",
    }  # fmt: skip
    assert event["createdAt"].endswith("Z") and event["id"]


def test_filters_and_pages(client):
    save(client, *({"type": "event", "name": f"n{n % 2}", "ts": 1_700_000_000_000 + n} for n in range(10)))
    save(client, {"type": "event", "name": "n0", "ts": 1_700_000_000_000}, app="shop")
    first = read(client, app="web", name="n0", limit=3)
    second = read(client, app="web", name="n0", limit=3, cursor=first["nextCursor"])
    assert [event["ts"][-5:] for event in first["events"] + second["events"]] == [".008Z"[-5:], ".006Z", ".004Z", ".002Z", ".000Z"]
    assert second["nextCursor"] is None
    ranged = read(client, **{"from": 1_700_000_000_003, "to": "2023-11-14T22:13:20.005Z"})
    assert [event["ts"][-5:] for event in ranged["events"]] == [".004Z", ".003Z"]


NO_SENSE = ["limit=0", "limit=1001", "limit=x", "type=nonsense", "from=yesterday",
            "from=%C2%B2", "to=-5", "cursor=abc", "app="]  # fmt: skip


@pytest.mark.parametrize("query", NO_SENSE)
def test_a_query_that_makes_no_sense_is_a_bad_request_that_names_it(client, query):
    response = client.get(f"/api/telemetry/events?{query}", headers=ADMIN)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "bad_request")
    assert error["details"][0]["path"] == query.split("=")[0]


@pytest.mark.parametrize("headers, status", [({}, 401), (KEY, 403), (bearer("u1"), 403), (bearer("s", "service"), 403)])
def test_only_an_admin_reads_events(client, headers, status):
    response = client.get("/api/telemetry/events?limit=x", headers=headers)
    assert response.status_code == status
    error_of(response)


def test_the_configuration_is_what_the_settings_say_with_an_etag(tmp_path):
    client = make_app(tmp_path, telemetry_sample_rate=0.25, telemetry_deny="debug.*").test_client()
    response = client.get("/api/telemetry/config?app=web", headers=KEY)
    assert response.get_json() == {"sampleRate": 0.25, "maxBatch": 50, "flushIntervalMs": 10_000, "allow": [], "deny": ["debug.*"]}
    again = client.get("/api/telemetry/config?app=web", headers={**KEY, "If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/api/telemetry/config").status_code == 401


def test_while_mongo_is_away_events_are_saved_to_the_spool_and_reading_is_unavailable(tmp_path):
    from tests.servers.ports import free_port

    client = make_app(tmp_path, mongo_uri=f"mongodb://127.0.0.1:{free_port()}/x", mongo_timeout_ms=200).test_client()
    assert save(client, {"type": "page", "name": "/"})["storage"] == "spool"
    response = client.get("/api/telemetry/events", headers=ADMIN)
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")


@pytest.mark.parametrize("text", ["2023-11-15T00:13:20.003 02:00", "2023-11-15T00:13:20.003%2B02:00", "2023-11-14T22:13:20.003z"])
def test_the_plus_of_an_offset_may_arrive_as_a_space(client, text):
    save(client, *({"type": "event", "name": "n", "ts": 1_700_000_000_002 + number} for number in range(3)))
    answer = client.get(f"/api/telemetry/events?from={text.replace(' ', '+')}", headers=ADMIN).get_json()
    assert [event["ts"][-5:] for event in answer["events"]] == [".004Z", ".003Z"]


@pytest.mark.parametrize(
    "time, unit", [(1_700_000_000, "seconds"), (1_700_000_000_000_000, "microseconds"), (1_700_000_000 * 10**9, "nanoseconds")]
)
def test_a_time_of_a_query_in_another_unit_is_refused_with_its_name(client, time, unit):
    response = client.get(f"/api/telemetry/events?from={time}", headers=ADMIN)
    message = f"Must be epoch milliseconds; this looks like {unit}: 1700000000000 in milliseconds."
    assert error_of(response)["details"] == [{"path": "from", "message": message}]
