"""Feature flags: who gets what, decided in memory from rules that an admin may change at any moment.

A request goes `routes` -> `flags` (the snapshot) -> `evaluate` -> `rules`; a write goes `routes` -> `flags` -> `store`.

    routes     the HTTP face
    schemas    the shapes that come in and go out
    flags      the snapshot, the writes, the announcements
    snapshot   all flags at one moment
    flag       one flag
    evaluate   the decision, a pure function
    rules      the table of rules, and the context they look at
    murmur3    the hash that rollouts are counted by
    store/     where flags are kept: file, mongo, memory
"""

from app.flags import routes  # noqa: F401 - create_app registers flags.routes.blueprint
