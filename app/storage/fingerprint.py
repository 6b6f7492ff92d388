"""Names the state of something, so that whoever read it can ask for what is new, or change only what they have seen."""

from hashlib import blake2b
from typing import Any

import orjson

from app.errors import ApiError


def fingerprint(value: Any) -> str:
    """32 hexadecimal digits over any JSON value, the same in every process."""
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def demand_match(current: str, if_match: frozenset[str] | None) -> None:
    """`if_match` are the fingerprints that were seen, None where any will do. Raises precondition_failed."""
    if if_match is not None and current not in if_match:
        raise ApiError("precondition_failed")
