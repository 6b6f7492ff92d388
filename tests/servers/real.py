"""The one rule for a real part that a machine cannot have: the test is skipped with the reason in pytest's summary.

REQUIRE_REAL=1, as CI sets it, makes the same a failure: there a part that quietly disappears takes its proofs with it.
"""

import os

import pytest


class Unavailable(Exception):
    """This machine cannot have the part; the message is a sentence saying why and what would help."""


def real(get, *arguments, **options):
    """What `get` returns, or the end of the test where the part is not to be had."""
    try:
        return get(*arguments, **options)
    except Unavailable as reason:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, and {reason}", pytrace=False)
        pytest.skip(str(reason))
