"""An address is one address: what a proxy's rule about it would not see is not served under it."""

import pytest

from tests.apps import WRITE_KEY, error_of, make_app


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return make_app(tmp_path_factory.mktemp("app")).test_client()


@pytest.mark.parametrize("path", ["//livez", "/%2Flivez", "//metrics", "/%2f%2Fhealthz", "//api/flags", "/%2Fapi/telemetry/config"])
def test_more_than_one_slash_at_the_beginning_is_another_address(client, path):
    answer = client.get(path, headers={"X-Write-Key": WRITE_KEY})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["//api/telemetry/batch", "/%2Fapi/perf/batch"])
def test_the_short_way_for_batches_is_no_way_around_it(client, path):
    assert client.post(path, json={"events": []}, headers={"X-Write-Key": WRITE_KEY}).status_code == 404


def test_the_addresses_themselves_are_served(client):
    assert client.get("/livez").status_code == 200
    assert client.post("/api/telemetry/batch", json={"events": []}, headers={"X-Write-Key": WRITE_KEY}).status_code == 200
