"""/api/flags through the whole application: who may do what, what comes back, and what a mistake is told."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.flags.rules import bucket
from app.flags.schemas import FlagListSchema, FlagSchema
from tests.apps import NOW, WRITE_KEY, Clock, bearer, error_of, make_app

KEY = {"X-Write-Key": WRITE_KEY}
ADMIN = bearer("boss", role="admin")
SERVICE = bearer("billing", role="service")
USER = bearer("u1", role="beta")
FLAG = {"key": "checkout", "enabled": True}
IN_10_PERCENT = next(f"s{n}" for n in range(1000) if bucket("checkout", f"s{n}") <= 10)
OUTSIDE = next(f"s{n}" for n in range(1000) if bucket("checkout", f"s{n}") > 10)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def app(tmp_path, clock):
    return make_app(tmp_path, parts={"clock": clock}, rate_limit_http="100000/second")


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def file(tmp_path, client):
    return tmp_path / "data" / "flags.json"


def create(client, **fields):
    response = client.post("/api/flags", json={**FLAG, **fields}, headers=ADMIN)
    assert response.status_code == 201, response.get_json()
    return response


def listed(client, headers=KEY, query=""):
    return {flag["key"]: flag for flag in client.get(f"/api/flags{query}", headers=headers).get_json()["flags"]}


def refused(response, status, code):
    assert response.status_code == status, response.get_data(as_text=True)
    error = error_of(response)
    assert error["code"] == code
    return error


def paths(response):
    return sorted(row["path"] for row in refused(response, 400, "bad_request")["details"])


# --- who may


@pytest.mark.parametrize("headers", [KEY, {"Authorization": f"Bearer {WRITE_KEY}"}, USER, SERVICE, ADMIN])
def test_a_write_key_or_a_token_may_read_the_flags(client, headers):
    assert client.get("/api/flags", headers=headers).get_json() == {"flags": []}


def test_a_request_without_a_credential_is_refused(client):
    refused(client.get("/api/flags"), 401, "unauthorized")


ADMINISTERING = [("POST", "/api/flags"), ("PUT", "/api/flags/a"), ("PATCH", "/api/flags/a"), ("DELETE", "/api/flags/a")]


@pytest.mark.parametrize(("method", "url"), ADMINISTERING)
@pytest.mark.parametrize("headers", [KEY, USER, SERVICE])
def test_only_an_admin_may_change_flags(client, method, url, headers):
    refused(client.open(url, method=method, headers=headers, json={}), 403, "forbidden")
    refused(client.open(url, method=method, json={}), 401, "unauthorized")


@pytest.mark.parametrize("url", ["/api/flags/checkout", "/api/flags?all=true"])
def test_only_service_and_admin_may_see_disabled_flags(client, url):
    create(client, enabled=False)
    for headers in (KEY, USER):
        refused(client.get(url, headers=headers), 403, "forbidden")
    for headers in (SERVICE, ADMIN):
        assert client.get(url, headers=headers).status_code == 200


def test_a_caller_without_permission_is_refused_before_its_body_is_checked(client):
    refused(client.post("/api/flags", data="{", headers=USER), 403, "forbidden")


# --- asking


def test_the_list_has_the_enabled_flags_with_the_decision_for_the_caller(client):
    create(client, rules={"role": ["beta"]}, startAt=NOW, endAt="2025-12-01T00:00:00Z", description="secret plans")
    create(client, key="off", enabled=False)
    assert client.get("/api/flags", headers=USER).get_json() == {
        "flags": [
            {
                "key": "checkout",
                "on": True,
                "reason": "TARGETING_MATCH",
                "enabled": True,
                "rules": {"role": ["beta"]},
                "startAt": "2025-10-09T08:53:20.000Z",
                "endAt": "2025-12-01T00:00:00.000Z",
                "updatedAt": "2025-10-09T08:53:20.000Z",
            }
        ]
    }
    assert listed(client, KEY)["checkout"]["on"] is False


def test_with_a_write_key_the_same_session_gets_the_same_decision(client):
    create(client, rules={"percent": 10})
    assert listed(client, query=f"?sessionId={IN_10_PERCENT}")["checkout"]["on"] is True
    assert listed(client, query=f"?sessionId={OUTSIDE}")["checkout"]["on"] is False
    assert listed(client, query="?sessionId=")["checkout"]["on"] is False
    assert listed(client)["checkout"]["on"] is False


def test_a_session_id_does_not_change_the_decision_for_a_user(client):
    create(client, rules={"percent": 10})
    user = bearer(IN_10_PERCENT)
    assert listed(client, user, f"?sessionId={OUTSIDE}")["checkout"]["on"] is True


def test_all_true_returns_whole_records(client):
    create(client, enabled=False, description="why")
    assert listed(client, SERVICE) == {}
    flag = listed(client, SERVICE, "?all=true")["checkout"]
    assert (flag["on"], flag["reason"], flag["version"], flag["description"]) == (False, "DISABLED", 1, "why")


def test_answers_have_the_fields_of_the_openapi_document(client):
    record = create(client, description="why").get_json()
    assert FlagSchema().validate(record) == {}
    assert record.keys() == FlagSchema().fields.keys()
    answer = client.get("/api/flags?all=true", headers=ADMIN).get_json()
    assert FlagListSchema().validate(answer) == {}


# --- ETags of the list


def test_a_current_if_none_match_gets_304(client):
    create(client)
    first = client.get("/api/flags", headers=KEY)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert {"Authorization", "X-Write-Key"} <= set(first.vary)
    for known in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        again = client.get("/api/flags", headers={**KEY, "If-None-Match": known})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])


@pytest.mark.parametrize("change", ["caller", "session", "all", "flag", "time"])
def test_an_etag_of_another_request_or_an_earlier_state_gets_the_whole_answer(client, clock, change):
    create(client, endAt=NOW + 1000)
    known = {"If-None-Match": client.get("/api/flags", headers=ADMIN).headers["ETag"]}
    headers, url = ADMIN, "/api/flags"
    if change == "caller":
        headers = USER
    if change == "session":
        url += "?sessionId=s"
    if change == "all":
        url += "?all=1"
    if change == "flag":
        client.patch("/api/flags/checkout", json={"rules": {"percent": 5}}, headers=ADMIN)
    if change == "time":
        clock.pass_ms(1000)
    assert client.get(url, headers={**headers, **known}).status_code == 200


@pytest.mark.parametrize("known", ["", "nonsense", '"', 'W/"', '"x"'])
def test_a_malformed_if_none_match_gets_the_whole_answer(client, known):
    assert client.get("/api/flags", headers={**KEY, "If-None-Match": known}).status_code == 200


# --- creating and reading


def test_a_new_flag_is_answered_with_its_location_and_its_etag(client):
    response = create(client, rules={"percent": 50})
    assert response.headers["Location"].endswith("/api/flags/checkout")
    read = client.get(response.headers["Location"], headers=SERVICE)
    assert read.get_json() == response.get_json()
    assert read.headers["ETag"] == response.headers["ETag"]
    assert response.get_json() == {
        "key": "checkout",
        "enabled": True,
        "rules": {"percent": 50},
        "startAt": None,
        "endAt": None,
        "version": 1,
        "updatedAt": "2025-10-09T08:53:20.000Z",
    }


def test_a_new_flag_with_only_a_key_is_disabled(client):
    response = client.post("/api/flags", json={"key": "quiet"}, headers=ADMIN)
    assert response.get_json()["enabled"] is False


def test_a_current_if_none_match_for_one_flag_gets_304(client):
    tag = create(client).headers["ETag"]
    assert client.get("/api/flags/checkout", headers={**ADMIN, "If-None-Match": tag}).status_code == 304


def test_a_key_that_exists_is_a_conflict(client):
    create(client)
    refused(client.post("/api/flags", json=FLAG, headers=ADMIN), 409, "conflict")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_key_that_does_not_exist_is_not_found(client, method):
    refused(client.open("/api/flags/ghost", method=method, json={}, headers={**ADMIN, "If-Match": "*"}), 404, "not_found")


# --- changing


def test_put_replaces_everything(client):
    create(client, rules={"percent": 50}, description="why", startAt=NOW)
    changed = client.put("/api/flags/checkout", json={"enabled": True}, headers=ADMIN).get_json()
    assert (changed["rules"], changed["startAt"], changed["version"]) == ({}, None, 2)
    assert "description" not in changed


def test_patch_changes_the_fields_it_names_and_rules_as_a_whole(client):
    create(client, rules={"percent": 50, "role": ["beta"]}, description="why")
    changed = client.patch("/api/flags/checkout", json={"rules": {"percent": 60}, "description": None}, headers=ADMIN).get_json()
    assert (changed["rules"], changed["enabled"]) == ({"percent": 60}, True)
    assert "description" not in changed


def test_a_flag_that_was_read_can_be_sent_back(client):
    record = create(client, rules={"percent": 50}, description="why").get_json()
    changed = client.put("/api/flags/checkout", json=record, headers=ADMIN).get_json()
    assert {**changed, "version": 1, "updatedAt": record["updatedAt"]} == record


def test_the_next_answer_has_the_change(client):
    create(client)
    client.patch("/api/flags/checkout", json={"rules": {"percent": 0}}, headers=ADMIN)
    assert listed(client)["checkout"]["on"] is False


def test_a_deleted_flag_is_gone(client):
    create(client)
    response = client.delete("/api/flags/checkout", headers=ADMIN)
    assert (response.status_code, response.data) == (204, b"")
    assert listed(client) == {}
    refused(client.get("/api/flags/checkout", headers=ADMIN), 404, "not_found")


def test_every_change_is_published_to_the_topic_flags(app, client, monkeypatch):
    realtime, published = app.extensions["switchyard"].realtime, []
    publish = realtime.publish

    def listening(topic, payload):
        published.append((topic, payload, publish(topic, payload)["ok"]))

    monkeypatch.setattr(realtime, "publish", listening)
    create(client)
    client.patch("/api/flags/checkout", json={"enabled": False}, headers=ADMIN)
    client.delete("/api/flags/checkout", headers=ADMIN)
    told = [(topic, change["kind"], change["key"], ok) for topic, change, ok in published]
    assert told == [("flags", "flag_changed", "checkout", True)] * 3
    assert [change.get("deleted") for _, change, _ in published] == [None, None, True]


CHANGES = [("PUT", {"enabled": False}), ("PATCH", {"enabled": False}), ("DELETE", None)]


@pytest.mark.parametrize(("method", "body"), CHANGES)
def test_a_stale_if_match_is_412_and_changes_nothing(client, method, body):
    stale = create(client).headers["ETag"]
    client.patch("/api/flags/checkout", json={"rules": {"percent": 7}}, headers=ADMIN)
    response = client.open("/api/flags/checkout", method=method, json=body, headers={**ADMIN, "If-Match": stale})
    refused(response, 412, "precondition_failed")
    assert listed(client)["checkout"]["rules"] == {"percent": 7}


@pytest.mark.parametrize(("method", "body"), CHANGES)
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*", None])
def test_a_current_if_match_or_a_star_or_none_is_accepted(client, method, body, form):
    tag = create(client).headers["ETag"]
    headers = {} if form is None else {"If-Match": form.format(tag)}
    response = client.open("/api/flags/checkout", method=method, json=body, headers={**ADMIN, **headers})
    assert response.status_code in (200, 204)


@pytest.mark.parametrize(("method", "body"), CHANGES)
@pytest.mark.parametrize("tag", ["abc", '"abc', ",", ""])
def test_a_malformed_if_match_is_400(client, method, body, tag):
    create(client)
    response = client.open("/api/flags/checkout", method=method, json=body, headers={**ADMIN, "If-Match": tag})
    assert paths(response) == ["headers.If-Match"]


# --- mistakes


def test_all_mistakes_of_a_body_are_named(client):
    body = {"key": "?", "enabled": "yes", "rules": {"percent": 101, "roles": ["a"]}, "startAt": "soon", "on": True}
    response = client.post("/api/flags", json=body, headers=ADMIN)
    assert paths(response) == ["enabled", "key", "on", "rules.percent", "rules.roles", "startAt"]


def test_a_new_flag_without_a_key_is_400(client):
    assert paths(client.post("/api/flags", json={}, headers=ADMIN)) == ["key"]


@pytest.mark.parametrize("body", ["", "{", "nonsense", "\x00", "[" * 2000, '{"key": NaN}', b"\xff"])
def test_a_body_that_is_not_json_is_400(client, body):
    refused(client.post("/api/flags", data=body, headers=ADMIN, content_type="application/json"), 400, "bad_request")


@pytest.mark.parametrize("body", [[], "text", 1, None, [FLAG]])
@pytest.mark.parametrize(("method", "url"), [("POST", "/api/flags"), ("PUT", "/api/flags/checkout"), ("PATCH", "/api/flags/checkout")])
def test_a_body_that_is_not_an_object_is_400(client, method, url, body):
    refused(client.open(url, method=method, data=json.dumps(body), headers=ADMIN), 400, "bad_request")


@pytest.mark.parametrize("key", ["-a", "a b", "%00", "é", "a" * 129, "a%0A"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_an_address_with_an_invalid_key_is_400(client, method, key):
    assert paths(client.open(f"/api/flags/{key}", method=method, json={}, headers=ADMIN)) == ["key"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_key_cannot_be_changed(client, method):
    create(client)
    assert paths(client.open("/api/flags/checkout", method=method, json={"key": "other"}, headers=ADMIN)) == ["key"]


def test_a_patch_that_empties_the_window_is_400(client):
    create(client, startAt=NOW)
    assert paths(client.patch("/api/flags/checkout", json={"endAt": NOW - 1}, headers=ADMIN)) == ["endAt"]


@pytest.mark.parametrize(("query", "path"), [("all=maybe", "all"), ("all=", "all"), (f"sessionId={'x' * 257}", "sessionId")])
def test_a_wrong_query_is_400(client, query, path):
    assert paths(client.get(f"/api/flags?{query}", headers=ADMIN)) == [path]


def test_unknown_query_parameters_are_ignored(client):
    assert client.get(f"/api/flags?writeKey={WRITE_KEY}&_=1700000000").status_code == 200


FUZZ = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["role", "percent"]), inner),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(["key", "enabled", "rules", "startAt", "endAt", "description"]) | st.text(max_size=5), FUZZ)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "PUT", "PATCH"]),
    body=BODIES | FUZZ,
    tag=st.none() | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")),
)
def test_no_body_and_no_header_causes_a_500(client, method, body, tag):
    headers = ADMIN if tag is None else {**ADMIN, "If-Match": tag}
    url = "/api/flags" if method == "POST" else "/api/flags/checkout"
    client.post("/api/flags", json=FLAG, headers=ADMIN)
    response = client.open(url, method=method, data=json.dumps(body), headers=headers)
    assert response.status_code in (200, 201, 400, 404, 409, 412)
    if response.status_code >= 400:
        error_of(response)


# --- the store is away


def test_while_the_file_has_mistakes_flags_are_served_and_writes_get_503_with_retry_after(app, client, file):
    create(client)
    listed(client)
    file.write_text("{")
    app.extensions["switchyard"].flags.refresh()
    assert listed(client)["checkout"]["on"] is True
    assert client.get("/api/flags/checkout", headers=ADMIN).status_code == 200
    for method, body in CHANGES:
        response = client.open("/api/flags/checkout", method=method, json=body, headers=ADMIN)
        error = refused(response, 503, "unavailable")
        assert error["retryable"] and error["retryAfterMs"] and "flags.json is not JSON" in error["message"]
    refused(client.post("/api/flags", json={"key": "b"}, headers=ADMIN), 503, "unavailable")
    health = client.get("/healthz", headers=ADMIN).get_json()["dependencies"]["flags"]
    assert health["state"] == "degraded" and health["flags"] == 1 and "not JSON" in health["error"]


def test_before_the_first_read_the_answer_is_503_and_not_an_empty_list(client, file):
    file.write_text("{")
    error = refused(client.get("/api/flags", headers=KEY), 503, "unavailable")
    assert "JSON" not in error["message"]  # what is wrong on our disk is not for everybody


# --- the contract


def test_the_openapi_document_names_every_answer_and_credential(client):
    spec = client.get("/openapi.json").get_json()
    one, many = spec["paths"]["/api/flags/{key}"], spec["paths"]["/api/flags"]
    assert many["get"]["security"] == [{"token": []}, {"writeKey": []}, {"writeKeyInQuery": []}]
    assert all(
        operation["security"] == [{"token": []}] for operation in (many["post"], one["get"], one["put"], one["patch"], one["delete"])
    )
    assert {parameter["name"] for parameter in many["get"]["parameters"]} == {"sessionId", "all", "If-None-Match"}
    assert {"200", "304", "400", "401", "403", "503", "default"} == many["get"]["responses"].keys()
    assert {"201", "400", "401", "403", "409", "415", "503", "default"} == many["post"]["responses"].keys()
    for method in ("put", "patch", "delete"):
        also = set() if method == "delete" else {"415"}
        assert {"400", "401", "403", "404", "412", "503"} | also < one[method]["responses"].keys()
        assert [parameter["name"] for parameter in one[method]["parameters"]] == ["If-Match"]
    assert [parameter["name"] for parameter in one["parameters"]] == ["key"]


def test_every_reference_in_the_openapi_document_resolves(client):
    spec = client.get("/openapi.json").get_json()
    for reference in _references(spec):
        place = spec
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def _references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _references(inner)
