"""Which web pages may talk to us: CORS_ORIGINS, the same for HTTP and for sockets.

A pattern is an origin (`https://app.example.com`), an origin with `*.` before its host for every subdomain of it
(`https://*.example.com`, not `https://example.com` itself), or `*` for everybody.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

_PATTERN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(\*\.)?[a-z0-9._-]+(:\d{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:]+\](:\d{1,5})?", re.I)


def is_pattern(text: str) -> bool:
    """`https://app.example.com/` is none: an origin has no path."""
    return _PATTERN.fullmatch(text) is not None


def allows(patterns: Iterable[str], origin: str) -> bool:
    return any(compiled(pattern).fullmatch(origin) for pattern in patterns)


@lru_cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Anchored at its end, too, so that `https://app.example.com.evil.test` is somebody else."""
    if pattern == "*":
        return re.compile(r".*\Z", re.DOTALL)
    return re.compile(re.escape(pattern).replace(r"://\*\.", r"://([a-z0-9-]+\.)+") + r"\Z", re.IGNORECASE)
