"""Numbers about the events, kept while they arrive, so that a dashboard never reads events.

The path of a number: `rollups` (notes what was saved, folds it in the background, flushes every few seconds) -> `counters`
(counters of what arrived) -> `bucket` (one application's minute, as it is stored) -> `store/` (MongoDB, with a file for
while it is away; that file alone in the embedded default). Back out: `summary` adds buckets up to an answer, with
percentiles from `sketch`.

What the numbers promise: an event that the sink knew already is not counted again; a flush that is repeated counts once;
what is lost at kill -9 is at most the last TELEMETRY_ROLLUPS_FLUSH_MS. An import (`imported`) counts what is new the same
way. Where the promise ends: while MongoDB fails, an event that is sent again may count twice, since the disk does not know
what MongoDB has; what an import had under way when MongoDB failed is not counted; and see `sinks/in_doubt.py`.
"""
