"""What one sender may use up of the storage, so that a public write key fills it for nobody else.

The path of a batch: `sender` (who sent it, and which applications it may name) -> `byte_rates` (a budget of bytes per
address or user, per write key and per app) -> where it goes to the spool: `spool_usage` (what each app has stored there) and
`spool_share` (how much one app may).
"""
