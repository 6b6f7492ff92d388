"""The system's clock is set, an hour back or forth, while a server runs: no wait becomes longer or shorter by it."""

import re
import time
from pathlib import Path

import pytest

from app.errors import ApiError
from app.health import FRESH_MS as HEALTH_FRESH_MS
from app.identity.jwks import FRESH_MS, REST_MS, Jwks
from app.identity.tokens import REMEMBERED_MS, TokenVerifier
from tests.apps import NOW, Clock, error_of, make_app
from tests.unit.identity.test_identity import signed
from tests.unit.identity.test_jwks import Issuer, document, jwk
from tests.unit.keys import rsa_key

HOUR_S = 3600
JUMPS = pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S], ids=["back", "forth"])


@pytest.fixture
def set_clock(monkeypatch):
    """Call it with seconds: the system's clock is that much later from now on."""
    true_s, true_ns = time.time, time.time_ns

    def by(seconds):
        monkeypatch.setattr(time, "time", lambda: true_s() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: true_ns() + seconds * 1_000_000_000)

    return by


@JUMPS
@pytest.mark.parametrize("redis_url", [None, "redis://127.0.0.1:1/0"], ids=["without Redis", "while Redis is away"])
def test_a_window_of_the_rate_limit_lasts_as_long_as_it_says(tmp_path, set_clock, jump_s, redis_url):
    client = make_app(tmp_path, rate_limit_http="3/minute", redis_url=redis_url).test_client()
    statuses = [client.get("/openapi.json").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    set_clock(jump_s)
    refused = client.get("/openapi.json")
    assert error_of(refused)["code"] == "rate_limited"
    assert 50 <= int(refused.headers["Retry-After"]) <= 61


@JUMPS
def test_a_window_ends_when_its_time_is_over_and_not_when_the_clock_says_so(tmp_path, set_clock, jump_s):
    client = make_app(tmp_path, rate_limit_http="1/second").test_client()
    assert [client.get("/openapi.json").status_code for _ in range(2)] == [200, 429]
    set_clock(jump_s)
    time.sleep(1.05)
    assert client.get("/openapi.json").status_code == 200


@JUMPS
def test_dependencies_are_asked_again_after_a_second(tmp_path, jump_s):
    clock, uptime = Clock(), Clock(0)
    health = make_app(tmp_path, parts={"clock": clock, "uptime": uptime}).extensions["switchyard"].health
    asked = []
    health._checks = {"spool": lambda: asked.append(1) or {"state": "up"}}
    for passed in (0, HEALTH_FRESH_MS - 1, 1):
        uptime.pass_ms(passed)
        health.report()
        clock.pass_ms(jump_s * 1000)
    assert len(asked) == 2


@JUMPS
def test_the_issuers_keys_are_looked_at_again_in_their_time(jump_s):
    uptime, issuer, wall = Clock(0), Issuer(), NOW + jump_s * 1000
    verifier = TokenVerifier(jwks=Jwks("u", issuer), uptime=uptime)
    token = signed(rsa_key(), "RS256", "k1", exp=NOW // 1000 + 5 * HOUR_S)
    assert verifier.verify(token, NOW)
    with pytest.raises(ApiError):
        verifier.verify(signed(rsa_key("second"), "RS256", "k2", exp=NOW // 1000 + 5 * HOUR_S), wall)
    assert issuer.asked == 1
    uptime.pass_ms(REST_MS)
    issuer.body = document(jwk(rsa_key("second"), "k2"))
    assert verifier.verify(signed(rsa_key("second"), "RS256", "k2", exp=NOW // 1000 + 5 * HOUR_S), wall)
    uptime.pass_ms(max(REMEMBERED_MS, FRESH_MS))
    with pytest.raises(ApiError):
        verifier.verify(token, wall)


@JUMPS
def test_the_age_of_the_flags_is_the_time_since_they_were_read(tmp_path, jump_s):
    clock, uptime = Clock(), Clock(0)
    flags = make_app(tmp_path, parts={"clock": clock, "uptime": uptime}).extensions["switchyard"].flags
    flags.refresh()
    clock.pass_ms(jump_s * 1000)
    uptime.pass_ms(1500)
    assert flags.check()["snapshotAgeMs"] == 1500


# The next one of this kind.

APP = Path(__file__).parents[2] / "app"
# Times of tokens and of the start, the Date header, and what the limits library wants to have, and gives, as epochs.
DATES = {"clock.py", "cli.py", "development.py", "process_usage.py", "response.py", "fixed_window_storage.py", "rate_limits.py"}


def test_no_part_asks_the_system_for_the_time_but_for_a_date():
    asking = {path.name for path in APP.rglob("*.py") if re.search(r"\btime\.time(_ns)?\(|datetime\.(utc)?now\(", path.read_text())}
    assert asking <= DATES
