"""The indexes that MongoDB should have, one numbered file a change, applied by `flask indexes migrate`.

Each file has a docstring that says why, `up(db, settings)` and `down(db)`; both may be run twice. One that depends on a
setting has `fingerprint(settings)`, too: when its text changes, the migration counts as pending again.
"""
