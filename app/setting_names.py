"""Which names of an environment are misspelt settings, and which are nobody's business of ours. Pure.

Under one of our prefixes an unknown name is a mistake for certain. Elsewhere it may be another program's own, so one that
is very much like a setting is only worth a word. Kubernetes gives every container variables about every service near it,
`FLAGS_PORT=tcp://10.0.0.1:80` for one that is called flags: nobody wrote those.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

OUR_PREFIXES = ("RT_", "TELEMETRY_", "SPOOL_", "FLAGS_", "JWT_")
CLOSE = 0.85  # MONGO_URL and MONGO_URI are at 0.89
OF_A_SERVICE = re.compile(r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
ADDRESS_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://")


def unknown(given: Mapping[str, str | None], known: Iterable[str]) -> dict[str, str | None]:
    """Those under our prefixes that are no setting, with the setting that each is most like."""
    ours = {name: value for name, value in given.items() if name.upper().startswith(OUR_PREFIXES)}
    known = set(known)
    return {
        name: _nearest(name, known)
        for name, value in sorted(ours.items())
        if name.upper() not in known and not is_of_a_service(name.upper(), value or "")
    }


def lookalikes(given: Mapping[str, str | None], known: Iterable[str]) -> dict[str, str]:
    """Names without our prefixes -> the setting that was most likely meant, where that one is not given as well."""
    known, there = set(known), {name.upper() for name in given}
    strangers = [name for name in sorted(given) if name.upper() not in known and not name.upper().startswith(OUR_PREFIXES)]
    nearest = {name: _nearest(name, known) for name in strangers if not is_of_a_service(name.upper(), given[name] or "")}
    return {name: meant for name, meant in nearest.items() if meant is not None and meant not in there}


def is_of_a_service(name: str, value: str) -> bool:
    has_its_address = name.endswith("_PORT") and ADDRESS_OF_A_SERVICE.match(value)
    return bool(has_its_address or OF_A_SERVICE.fullmatch(name))


def _nearest(name: str, known: set[str]) -> str | None:
    return next(iter(get_close_matches(name.upper(), known, n=1, cutoff=CLOSE)), None)
