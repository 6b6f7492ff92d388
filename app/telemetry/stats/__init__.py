"""Statistics about the events, counted while they arrive, so that a dashboard never reads events.

The path of a count: `rollups` (takes the saved events, counts them in the background, flushes every few seconds) -> `counters` (what
arrived since the last flush) and `grouping` (how many counters each application may have) -> `bucket` (the counts of one application
and one minute, hour or day) -> `store/` (MongoDB, with a file in which deltas wait while MongoDB is away; without MongoDB that file
alone). The way back: `reader` adds up buckets in a `summary`, with percentiles from `sketch`. `import_counts` does for
`flask telemetry import` what `rollups` does for a server.

The promise: an event that the storage knew already is not counted again, and a delta that is applied twice counts once. A process that
is killed loses the counts of at most the last TELEMETRY_ROLLUPS_FLUSH_MS. The limits of the promise: an event that is sent again while
MongoDB fails may count twice, since the spool does not know which events MongoDB has; the events that an import had under way when
MongoDB failed are not counted; and see `sinks/in_doubt.py`.
"""
