"""Finds misspelt settings among the names of the environment. Pure.

An unknown name under one of our prefixes is a mistake. Another name may belong to another program, so it is only reported if
it closely resembles a setting. Kubernetes sets variables for each service in the namespace, such as
`FLAGS_PORT=tcp://10.0.0.1:80` for a service called flags; they are ignored.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

OUR_PREFIXES = ("RT_", "TELEMETRY_", "SPOOL_", "FLAGS_", "JWT_")
MIN_SIMILARITY = 0.85  # MONGO_URL and MONGO_URI have 0.89
KUBERNETES_NAME = re.compile(r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def unknown_settings(given: Mapping[str, str | None], settings: Iterable[str]) -> dict[str, str | None]:
    """Return the names under our prefixes that are no setting, each with the most similar setting or None."""
    known = set(settings)
    unknown = sorted(name for name in given if is_ours(name) and name.upper() not in known)
    return {name: _most_similar(name, known) for name in unknown if not is_from_kubernetes(name.upper(), given[name] or "")}


def similar_names(given: Mapping[str, str | None], settings: Iterable[str]) -> dict[str, str]:
    """Return the names without our prefixes that resemble a setting, each with that setting if it is not given as well."""
    known, names = set(settings), {name.upper() for name in given}
    foreign = sorted(name for name in given if not is_ours(name) and name.upper() not in known)
    nearest = {name: _most_similar(name, known) for name in foreign if not is_from_kubernetes(name.upper(), given[name] or "")}
    return {name: meant for name, meant in nearest.items() if meant is not None and meant not in names}


def is_ours(name: str) -> bool:
    """Whether the name has one of our prefixes."""
    return name.upper().startswith(OUR_PREFIXES)


def is_from_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes sets such a variable for a service."""
    has_address = name.endswith("_PORT") and KUBERNETES_ADDRESS.match(value)
    return bool(has_address or KUBERNETES_NAME.fullmatch(name))


def _most_similar(name: str, known: set[str]) -> str | None:
    return next(iter(get_close_matches(name.upper(), known, n=1, cutoff=MIN_SIMILARITY)), None)
