"""More than can be done: refused at once and cheaply, and never a request that waits for a driver's patience."""

import requests

from tests.apps import WRITE_KEY, error_of
from tests.integration.telemetry_clients import SETTINGS, Clients, assert_kept, wait_until_drained


def test_more_batches_than_may_be_in_flight_are_told_at_once_to_come_back(switchyard, mongo_server, mongo_uri, proxy_to):
    proxy = proxy_to(mongo_server.port)
    uri = mongo_uri.replace(str(mongo_server.port), str(proxy.port))
    app = switchyard(MONGO_URI=uri, TELEMETRY_MAX_IN_FLIGHT=4, **{**SETTINGS, "MONGO_TIMEOUT_MS": 3000})
    proxy.add("latency", latency=400)
    with Clients(app.url, count=16) as clients:
        clients.until(lambda: clients.answers.get("mongo", 0) > 5 and clients.answers.get("unavailable", 0) > 20)
        refusal = None
        while refusal is None or refusal.status_code == 200:
            body = {"app": "web", "events": []}
            refusal = requests.post(f"{app.url}/api/telemetry/batch", json=body, headers={"X-Write-Key": WRITE_KEY}, timeout=5)
        assert error_of(refusal)["code"] == "unavailable"
        assert refusal.elapsed.total_seconds() < 0.35, "it did not wait for MongoDB"
        proxy.remove("latency")
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)
