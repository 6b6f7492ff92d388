"""Feature flags: named switches that the server evaluates for each caller, from a snapshot in memory.

A read goes `routes` -> `schemas` -> `flags` -> `flag` (the snapshot) -> `rules` -> `murmur3`; a write goes `routes` ->
`schemas` -> `flags` -> `store`.

    routes     the HTTP endpoints
    schemas    the JSON of requests, answers and stored records
    flags      refreshes the snapshot, changes flags, announces changes
    flag       one flag, and the snapshot of all flags
    rules      the table of rules, and the decision for one flag
    murmur3    the hash behind percentages
    store/     where flags are stored: file, mongo, memory
"""

from app.flags import routes  # noqa: F401 - create_app registers flags.routes.blueprint
