"""An application's own configuration over HTTP, with MongoDB and without, and what the server holds SDKs to."""

import json

import pytest
from structlog.testing import capture_logs

from tests.apps import WRITE_KEY, bearer, error_of, make_app

ADMIN = bearer("boss", "admin")
KEY = {"X-Write-Key": WRITE_KEY}
URL = "/api/telemetry/config/web"
USUAL = {"sampleRate": 1.0, "maxBatch": 50, "flushIntervalMs": 10_000, "allow": [], "deny": []}
FULL = {"sampleRate": 0.25, "maxBatch": 7, "flushIntervalMs": 1000, "allow": ["ui.*"], "deny": ["ui.debug"]}


@pytest.fixture(params=["embedded", "mongo"])
def settings(request):
    return {"mongo_uri": request.getfixturevalue("mongo_uri"), "mongo_timeout_ms": 5000} if request.param == "mongo" else {}


@pytest.fixture
def client(tmp_path, settings):
    return make_app(tmp_path, **settings).test_client()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return make_app(tmp_path_factory.mktemp("app"), rate_limit_http="100000/second").test_client()


def put(client, body, url=URL):
    response = client.put(url, json=body, headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.get_json()


def told(client, app="web"):
    return client.get(f"/api/telemetry/config?app={app}", headers=KEY).get_json()


def send(client, *names, app="web"):
    body = {"app": app, "events": [{"type": "event", "name": name} for name in names]}
    return client.post("/api/telemetry/batch", json=body, headers=KEY).get_json()


def test_what_is_put_is_what_the_sdks_of_that_application_are_told(client):
    assert put(client, FULL) == {"ok": True, "app": "web", "overrides": FULL, "config": FULL}
    assert told(client) == FULL
    assert told(client, "shop") == client.get("/api/telemetry/config", headers=KEY).get_json() == USUAL


def test_a_bound_write_key_is_told_about_its_own_apps_only(tmp_path):
    key = "wk_that_is_bound_to_the_shop"
    client = make_app(tmp_path, write_keys=f"shop:{key}@shop").test_client()
    answers = [client.get(f"/api/telemetry/config{query}", headers={"X-Write-Key": key}) for query in ("?app=shop", "", "?app=blog")]
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert error_of(answers[2])["code"] == "forbidden"
    assert client.get("/api/telemetry/config?app=blog", headers=bearer("u1")).status_code == 200


def test_a_part_is_merged_with_the_settings_and_null_takes_an_override_away(client):
    put(client, {"sampleRate": 0.5, "maxBatch": 9})
    answer = put(client, {"sampleRate": None, "maxBatch": 9})
    assert (answer["overrides"], answer["config"]) == ({"maxBatch": 9}, {**USUAL, "maxBatch": 9})
    assert client.get(URL, headers=ADMIN).get_json() == answer


def test_a_deleted_one_is_gone_and_there_is_nothing_to_delete_twice(client):
    put(client, FULL)
    assert client.delete(URL, headers=ADMIN).status_code == 204
    assert told(client) == USUAL
    assert client.get(URL, headers=ADMIN).get_json()["overrides"] == {}
    response = client.delete(URL, headers=ADMIN)
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


def test_the_etag_changes_with_the_override_and_only_then(client):
    first = client.get("/api/telemetry/config?app=web", headers=KEY).headers["ETag"]

    def status():
        return client.get("/api/telemetry/config?app=web", headers={**KEY, "If-None-Match": first}).status_code

    assert status() == 304
    put(client, {"deny": ["x"]}, "/api/telemetry/config/shop")
    assert status() == 304
    put(client, {"deny": ["x"]})
    assert status() == 200
    client.delete(URL, headers=ADMIN)
    assert status() == 304


CHANGES = [("PUT", {"maxBatch": 9}), ("DELETE", None)]


@pytest.mark.parametrize("method, body", CHANGES)
def test_a_stale_if_match_is_412_and_changes_nothing(client, method, body):
    put(client, {"maxBatch": 3})
    stale = client.get(URL, headers=ADMIN).headers["ETag"]
    put(client, FULL)
    response = client.open(URL, method=method, json=body, headers={**ADMIN, "If-Match": stale})
    assert (response.status_code, error_of(response)["code"]) == (412, "precondition_failed")
    assert told(client) == FULL


@pytest.mark.parametrize("method, body", CHANGES)
@pytest.mark.parametrize("form", ["{}", "W/{}", "*"])
def test_a_current_if_match_or_a_star_is_let_through(client, method, body, form):
    tag = client.put(URL, json=FULL, headers=ADMIN).headers["ETag"]
    assert tag == client.get(URL, headers=ADMIN).headers["ETag"]
    response = client.open(URL, method=method, json=body, headers={**ADMIN, "If-Match": form.format(tag)})
    assert response.status_code in (200, 204)


def test_of_two_who_saw_the_same_at_two_workers_the_second_is_told(tmp_path, settings):
    here, there = make_app(tmp_path, **settings).test_client(), make_app(tmp_path, **settings).test_client()
    seen = {**ADMIN, "If-Match": here.get(URL, headers=ADMIN).headers["ETag"]}
    assert there.get(URL, headers=ADMIN).headers["ETag"] == seen["If-Match"]
    assert here.put(URL, json={"maxBatch": 3}, headers=seen).status_code == 200
    assert there.put(URL, json={"maxBatch": 4}, headers=seen).status_code == 412
    assert told(here)["maxBatch"] == 3


def test_what_was_seen_already_is_not_sent_again(client):
    tag = client.get(URL, headers=ADMIN).headers["ETag"]
    response = client.get(URL, headers={**ADMIN, "If-None-Match": tag})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", tag)
    put(client, FULL)
    assert client.get(URL, headers={**ADMIN, "If-None-Match": tag}).status_code == 200


def test_a_malformed_if_match_is_400(embedded):
    response = embedded.put(URL, json={}, headers={**ADMIN, "If-Match": "abc"})
    assert (response.status_code, error_of(response)["details"][0]["path"]) == (400, "headers.If-Match")


def test_another_worker_has_it_after_its_refresh(tmp_path, settings):
    here, there = make_app(tmp_path, **settings), make_app(tmp_path, **settings)
    assert told(there.test_client()) == USUAL
    put(here.test_client(), FULL)
    there.extensions["switchyard"].telemetry_config.refresh()
    assert told(there.test_client()) == FULL
    assert send(there.test_client(), "ui.debug")["saved"] == 0


def test_denied_events_are_rejected_one_by_one_with_their_own_code(client):
    put(client, {"allow": ["ui.*"], "deny": ["ui.debug*"]})
    answer = send(client, "ui.click", "ui.debug.x", "page")
    assert answer["saved"] == 1
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(1, "denied"), (2, "denied")]
    assert send(client, "ui.debug.x", app="shop")["saved"] == 1
    assert send(client, "page") == {"ok": True, "saved": 0, "rejected": [{**answer["rejected"][1], "index": 0}]}
    stored = client.get("/api/telemetry/events?app=web", headers=ADMIN).get_json()["events"]
    assert [event["name"] for event in stored] == ["ui.click"]


def test_the_flask_way_denies_as_the_short_way_does(client):
    put(client, {"deny": ["x"]})
    body = {"app": "web", "events": [{"type": "event", "name": "x"}]}
    unusual = client.post("/api/telemetry/batch", data=json.dumps(body), content_type="Text/Plain; charset=UTF-8", headers=KEY)
    assert unusual.get_json() == send(client, "x")


def test_a_sample_rate_of_zero_refuses_everything_and_any_other_nothing(client):
    put(client, {"sampleRate": 0})
    assert send(client, "a")["rejected"][0]["code"] == "denied"
    put(client, {"sampleRate": 0.01})
    assert send(client, *"abc")["saved"] == 3


def test_the_settings_own_lists_are_enforced_for_applications_without_any(tmp_path):
    client = make_app(tmp_path, telemetry_deny="debug.*").test_client()
    assert send(client, "debug.x", "a")["saved"] == 1
    put(client, {"deny": []})
    assert send(client, "debug.x", "a")["saved"] == 2
    assert send(client, "debug.x", "a", app="shop")["saved"] == 1


WRONG = [
    ({"sampleRate": 1.1}, "sampleRate"), ({"sampleRate": -0.1}, "sampleRate"), ({"sampleRate": "1"}, "sampleRate"),
    ({"sampleRate": True}, "sampleRate"), ({"maxBatch": 0}, "maxBatch"), ({"maxBatch": 1001}, "maxBatch"), ({"maxBatch": 5.5}, "maxBatch"),
    ({"maxBatch": "5"}, "maxBatch"), ({"maxBatch": False}, "maxBatch"), ({"flushIntervalMs": 99}, "flushIntervalMs"),
    ({"flushIntervalMs": 3_600_001}, "flushIntervalMs"), ({"flushIntervalMs": []}, "flushIntervalMs"), ({"allow": "x"}, "allow"),
    ({"allow": [""]}, "allow.0"), ({"deny": ["a", 5]}, "deny.1"), ({"deny": ["x" * 257]}, "deny.0"), ({"deny": ["x"] * 201}, "deny"),
    ({"samplerate": 1}, "samplerate"), ({"app": "web"}, "app"),
]  # fmt: skip


@pytest.mark.parametrize("body, path", WRONG)
def test_a_wrong_override_is_a_bad_request_that_names_it_and_changes_nothing(embedded, body, path):
    response = embedded.put(URL, json=body, headers=ADMIN)
    error = error_of(response)
    assert (response.status_code, error["code"], [row["path"] for row in error["details"]]) == (400, "bad_request", [path])
    assert told(embedded) == USUAL


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"5"])
def test_a_body_that_is_no_object_is_a_bad_request(embedded, raw):
    response = embedded.put(URL, data=raw, content_type="application/json", headers=ADMIN)
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_the_name_of_an_application_has_its_limit_and_may_have_any_character(embedded, method):
    response = embedded.open(f"/api/telemetry/config/{'x' * 129}", method=method, json={}, headers=ADMIN)
    assert (response.status_code, error_of(response)["details"][0]["path"]) == (400, "app")
    assert put(embedded, {"maxBatch": 3}, "/api/telemetry/config/team%2Fweb%20x.y")["app"] == "team/web x.y"
    assert told(embedded, "team/web x.y")["maxBatch"] == 3


@pytest.mark.parametrize("headers, status", [({}, 401), (KEY, 403), (bearer("u1"), 403), (bearer("s", "service"), 403)])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_an_admin_may(embedded, method, headers, status):
    response = embedded.open(URL, method=method, json={"wrong": 1}, headers=headers)
    assert response.status_code == status
    error_of(response)


def test_the_contract_has_the_routes_and_their_limits(embedded):
    contract = embedded.get("/openapi.json").get_json()
    operations = contract["paths"]["/api/telemetry/config/{app}"]
    assert {"get", "put", "delete"} <= operations.keys()
    assert all("412" in operations[method]["responses"] for method in ("put", "delete"))
    assert contract["components"]["schemas"]["Overrides"]["properties"]["flushIntervalMs"]["maximum"] == 3_600_000


def test_while_mongo_is_away_the_last_configuration_holds_and_a_change_is_told_to_come_back(tmp_path, own_mongo):
    app = make_app(tmp_path, mongo_uri=own_mongo.new_database(), mongo_timeout_ms=300)
    client = app.test_client()
    put(client, {"deny": ["x"]})
    own_mongo.kill()
    app.extensions["switchyard"].telemetry_config.refresh()
    assert told(client)["deny"] == ["x"]
    assert send(client, "x")["saved"] == 0
    with capture_logs() as lines:
        response = client.put(URL, json={}, headers=ADMIN)
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
    assert error_of(response)["message"] == "MongoDB is away; try again later."
    assert f"127.0.0.1:{own_mongo.port}" in lines[-1]["reason"]


def test_an_if_match_on_reading_that_names_another_state_is_an_error_of_the_one_shape(client):
    response = client.get("/api/telemetry/config", query_string={"writeKey": WRITE_KEY}, headers={"If-Match": '"other"'})
    assert (response.status_code, error_of(response)["code"]) == (412, "precondition_failed")
