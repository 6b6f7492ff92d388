"""Moves the spool into MongoDB while the server runs.

Every worker runs a `drainer`, and the one that holds the lock of the data directory does the work: `segment_mover` moves one file
of the spool, and `pace` decides how long it rests between two chunks. `live_traffic` reports whether live events arrive at any
worker, `lost_events` checks that MongoDB still has what was moved earlier, and `backlog` reports to health and metrics what waits.
"""
