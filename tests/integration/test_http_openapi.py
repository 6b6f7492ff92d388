"""The contract is a valid one, and says of every route what it takes and who may ask."""

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.apps import WRITE_KEY, make_app

NOT_FOR_CLIENTS = ("/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/docs", "/asyncapi.json", "/console", "/sdk/")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return make_app(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def contract(app):
    return app.test_client().get("/openapi.json").get_json()


def operations(contract):
    return [(method, path, row) for path, rows in contract["paths"].items() for method, row in rows.items() if isinstance(row, dict)]


def test_the_contract_is_valid_openapi(contract):
    validate(contract)
    assert contract["openapi"].startswith("3.1")


def test_every_route_for_clients_is_in_it(app, contract):
    known = {(method.upper(), path) for method, path, _ in operations(contract)}
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith(NOT_FOR_CLIENTS):
            path = rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}")
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                assert (method, path) in known, f"{method} {path} is not documented"


def routes_of_the_page():
    """(method, path) of the table's first column, where a cell may name several: `GET PUT /a`, `GET /b`."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text()
    first_cells = re.findall(r"^\| (`[A-Z][^|]*) \|", page, re.MULTILINE)
    spans = [span.split() for cell in first_cells for span in re.findall("`([^`]+)`", cell)]
    return {(method, path.partition("?")[0]) for *methods, path in spans for method in methods}


def test_the_page_of_the_docs_has_every_route_and_no_other(app):
    rules = [(rule.rule.replace("<path:", "<"), rule.methods - {"HEAD", "OPTIONS"}) for rule in app.url_map.iter_rules()]
    assert routes_of_the_page() == {(method, path) for path, methods in rules for method in methods}


def test_every_operation_says_who_may_ask_and_what_it_does(contract):
    schemes = contract["components"]["securitySchemes"].keys()
    for method, path, row in operations(contract):
        assert row.get("summary"), f"{method} {path} has no summary"
        assert row.get("security"), f"{method} {path} does not say who may ask"
        assert all(set(alternative) <= schemes for alternative in row["security"])


EVENT = {"type": "page", "name": "/"}
EVERY_FIELD = {**EVENT, "ts": 1769817600000.5, "props": {"a": [1]}, "eventId": 7, "userId": 7, "sessionId": "s", "user": {}, "env": None}
BATCHES = [
    {"app": "web", "events": [EVENT, EVERY_FIELD]}, {"events": [{**EVENT, "app": "web", "ts": "2026-01-31"}]}, {"events": []},
    {}, {"app": "web", "sdk": "2.0"}, {"events": None}, {"app": 5, "events": []}, {"app": "web", "sentAt": {}, "events": []},
    {"app": "web", "user": [], "events": []}, {"app": "web", "events": [{**EVENT, "props": []}]},
    {"app": "web", "events": [{"name": "lcp"}]},
    {"app": "web", "events": [{**EVENT, "ts": {}}]}, {"app": "web", "events": [{**EVENT, "type": "other"}]},
]  # fmt: skip


@pytest.mark.parametrize("path", ["/api/telemetry/batch", "/api/perf/batch"])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_that_the_contract_allows_is_saved_whole_and_any_other_is_not(app, contract, path, batch):
    (schema,) = {row["schema"]["$ref"] for row in contract["paths"][path]["post"]["requestBody"]["content"].values()}
    is_allowed = Draft202012Validator({**contract, "$ref": schema}).is_valid(batch)
    answer = app.test_client().post(path, json=batch, query_string={"writeKey": WRITE_KEY}).get_json()
    assert (answer["ok"] and "rejected" not in answer and "adjusted" not in answer) is is_allowed


def test_every_error_has_the_one_shape(contract):
    error = contract["components"]["schemas"]["Error"]["properties"]["error"]
    shape = contract["components"]["schemas"][error["$ref"].rsplit("/", 1)[-1]] if "$ref" in error else error
    assert {"code", "message", "retryable", "retryAfterMs", "details"} <= shape["properties"].keys()
    assert set(shape["required"]) == {"code", "message", "retryable"}


def test_the_contract_is_for_anyone_and_needs_no_credential(app):
    assert app.test_client().get("/openapi.json").status_code == 200
