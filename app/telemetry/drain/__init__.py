"""Moves the spool into MongoDB while the server runs.

`drainer` is the background task; one process of the data directory holds its lock. `pace` decides how long it rests, `live_traffic`
reports whether live events arrive at any worker, and `lost_events` checks that MongoDB still has what was moved earlier.
"""
