"""Flags of a running server, with its own background refresh."""

import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer

ADMIN = bearer("boss", role="admin")


@pytest.fixture(params=["flask", "gunicorn"])
def server(request, switchyard):
    return switchyard(by=request.param, FLAGS_REFRESH_MS=100, JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}")


def listed(server):
    return {flag["key"]: flag["on"] for flag in requests.get(f"{server.url}/api/flags?writeKey={WRITE_KEY}", timeout=5).json()["flags"]}


def health(server):
    return requests.get(f"{server.url}/healthz", headers=ADMIN, timeout=5).json()["dependencies"]["flags"]


def soon(question, *args):
    """True as soon as the question is answered so, False when it is not within five seconds."""
    deadline = time.monotonic() + 5
    while not question(*args) and time.monotonic() < deadline:
        time.sleep(0.05)
    return question(*args)


def test_a_running_server_loads_a_manual_edit_and_reports_one_with_mistakes_without_losing_flags(server):
    created = requests.post(f"{server.url}/api/flags", json={"key": "a", "enabled": True}, headers=ADMIN, timeout=5)
    assert created.status_code == 201
    file = server.data_dir / "flags.json"
    file.write_text(file.read_text().replace('"key": "a"', '"key": "edited"'))
    assert soon(lambda: listed(server) == {"edited": True})
    file.write_text("{")
    assert soon(lambda: health(server)["state"] == "degraded")
    assert listed(server) == {"edited": True}
    assert "not JSON" in health(server)["error"]
    file.write_text('{"flags": []}')
    assert soon(lambda: listed(server) == {} and health(server)["state"] == "up")
    assert server.is_running
