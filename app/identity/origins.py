"""Which web pages may talk to us: CORS_ORIGINS, the same for HTTP and for sockets.

A pattern is an origin (`https://app.example.com`), an origin with `*.` before its host for every subdomain of it
(`https://*.example.com`, not `https://example.com` itself), `file://` for pages opened from a disk or packed into an app
(browsers name these `file://` or `null`), or `*` for everybody.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

FROM_DISK = "file://"
_HOST = r"(\*\.)?[a-z0-9._-]+|\[[0-9a-f:]+\]"
_PATTERN = re.compile(rf"\*|null|file://|[a-z][a-z0-9+.-]*://({_HOST})(:\d{{1,5}})?", re.I)


def is_pattern(text: str) -> bool:
    """`https://app.example.com/` is none: an origin has no path."""
    return _PATTERN.fullmatch(text) is not None


def allows(patterns: Iterable[str], origin: str) -> bool:
    return any(compiled(pattern).fullmatch(origin) for pattern in patterns)


def is_own(origin: str, host: str) -> bool:
    """Whether a page of this origin asks the host that it was loaded from. Compares host and port only, since a proxy may take
    https and pass on http."""
    try:
        return _host_and_port(origin) == _host_and_port(f"{urlsplit(origin).scheme}://{host}")
    except ValueError:
        return False


def _host_and_port(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@lru_cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Anchored at its end, too, so that `https://app.example.com.evil.test` is somebody else."""
    if pattern == "*":
        return re.compile(r".*\Z", re.DOTALL)
    if pattern.lower() == FROM_DISK:
        return re.compile(r"(file://|null)\Z", re.IGNORECASE)
    return re.compile(re.escape(pattern).replace(r"://\*\.", r"://([a-z0-9-]+\.)+") + r"\Z", re.IGNORECASE)
