"""The application inside the test process, made by create_app with a data folder of its own.

No background task runs. A test that needs the files of the spool or a snapshot of the flags calls the functions that make them.
"""

import time

from app import create_app
from app.identity.tokens import make_token
from app.settings import load_settings

SECRET = "a secret of the tests that is long enough to be one"
WRITE_KEY = "wk_of_the_tests_that_is_long_enough"
NOW = 1_760_000_000_000  # 2025-10-09T08:53:20Z


class Clock:
    """A clock that a test sets. Calling it gives epoch milliseconds."""

    def __init__(self, now: int = NOW):
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, ms: int) -> None:
        self.now += ms


def make_settings(tmp_path, **changes):
    defaults = {"data_dir": tmp_path / "data", "jwt_secret": SECRET, "write_keys": f"web:{WRITE_KEY}"}
    return load_settings(None, **{**defaults, **changes})


def make_app(tmp_path, *, parts=None, **changes):
    """Return an application. `parts` replaces arguments of wiring.build; `changes` are settings."""
    from app.wiring import build  # loads every driver, which tests of pure code do not need

    settings = make_settings(tmp_path, **changes)
    return create_app(settings, build(settings, **(parts or {})))


def token(sub="u1", role=None, ttl_s=3600, **claims):
    claims = {"sub": sub, "exp": int(time.time()) + ttl_s, **claims}
    if role is not None:
        claims["role"] = role
    return make_token(SECRET, claims)


def bearer(*args, **kwargs):
    """Return the header with `token(…)`."""
    return {"Authorization": f"Bearer {token(*args, **kwargs)}"}


def error_of(response):
    """Return the error of an answer, after checking the shape that all errors share."""
    body = response.get_json() if callable(getattr(response, "get_json", None)) else response.json()
    assert body["ok"] is False
    error = body["error"]
    assert isinstance(error["code"], str) and isinstance(error["message"], str) and isinstance(error["retryable"], bool)
    assert response.headers["X-Request-Id"]
    if response.status_code in (429, 503):
        assert int(response.headers["Retry-After"]) >= 1
    return error
