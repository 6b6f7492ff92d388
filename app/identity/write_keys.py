"""Write keys as the setting writes them: `web:wk_abc,ios:wk_def@shop+blog`. A key is public by nature, so after `@` may stand the
only applications that it may name.
"""

from collections.abc import Collection
from typing import NamedTuple

SHORTEST_IN_PRODUCTION = 16  # characters, of a write key and of METRICS_TOKEN: anything shorter can be guessed
MAX_APP_LENGTH = 128
SHAPE = "must be a list of name:key pairs, like web:wk_abc,ios:wk_def@shop+blog"


class WriteKey(NamedTuple):
    """`apps` are the only applications that its events may name; None where it may name any."""

    name: str
    apps: frozenset[str] | None = None


def read_write_keys(pairs: Collection[str]) -> dict[str, WriteKey]:
    """By the key itself. A name may stand twice (two keys while one is replaced). Raises ValueError with a sentence that does not
    contain the key."""
    keys: dict[str, WriteKey] = {}
    for pair in pairs:
        name, colon, rest = (part.strip() for part in pair.partition(":"))
        key, at, apps = (part.strip() for part in rest.partition("@"))
        if not (colon and name and key):
            raise ValueError(SHAPE)
        if key in keys:
            raise ValueError(f"gives one key to both {keys[key].name} and {name}; nobody could tell them apart")
        keys[key] = WriteKey(name, _apps(apps, name) if at else None)
    return keys


def _apps(text: str, name: str) -> frozenset[str]:
    apps = [app.strip() for app in text.split("+")]
    if not all(0 < len(app) <= MAX_APP_LENGTH for app in apps):
        raise ValueError(f"binds the key of {name} to an application without a name or with more than {MAX_APP_LENGTH} characters; {SHAPE}")
    return frozenset(apps)
