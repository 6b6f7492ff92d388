"""Collects: a batch comes in over HTTP, its good events become durable, its bad ones are named, and only then is it answered.

The path of an event: `routes` (who may send, what bytes) -> `schemas` (what is a good event) -> `batch` (the form that
is stored: identity, clock) -> `ingest` (the answer) -> `sinks/ladder` (MongoDB, else the spool, else 503).
What went into the spool is moved on by the `drainer` when MongoDB answers again, at its `pace`, slower while there is live
`traffic`; `importer` and `cli` do it by hand.
Reading back: `routes` -> `query` -> the sink that holds the events; `stats/` keeps the numbers about them. `config/` is what
the SDKs ask for, and what of it the server holds them to.
"""

from app.telemetry import routes

__all__ = ["routes"]
