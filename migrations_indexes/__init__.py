"""MongoDB's indexes, one numbered file per change. `flask indexes migrate` applies them in order.

Each file has a docstring with the reason, `up(db, settings)` and `down(db)`; running either twice is safe. A migration that depends on
a setting also has `fingerprint(settings)`: when the returned text changes, the migration is pending again.
"""
