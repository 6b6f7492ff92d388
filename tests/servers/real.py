"""What happens to a test when the machine lacks a real server: pytest skips it and reports the reason.

With REQUIRE_REAL=1, as in CI, the test fails instead, so that a missing server cannot silently remove tests.
"""

import os

import pytest


class Unavailable(Exception):
    """The machine lacks a server or program. The message is a sentence with the reason and the remedy."""


def real(get, *arguments, **options):
    """Return `get(…)`; if it raises Unavailable, skip the test or, with REQUIRE_REAL=1, fail it."""
    try:
        return get(*arguments, **options)
    except Unavailable as reason:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, and {reason}", pytrace=False)
        pytest.skip(str(reason))
