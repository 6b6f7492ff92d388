"""Keeps the file of the statistics within its maximum size: deletes the oldest minutes of the application that has to lose buckets
(`eviction`), and its hours and days only when it has no minutes left.
"""

import sqlite3
from functools import partial

from app.telemetry.stats.store.eviction import FREED_SHARE, Stored, evict

ROW_BYTES = 100  # of a bucket beside its text: its key, that key again in an index, and the overhead of SQLite
BUCKETS_AT_ONCE = 100


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the bytes of the file, without the free pages that SQLite will use again."""
    pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def make_room(db: sqlite3.Connection, max_bytes: int) -> dict[str, int]:
    """Delete buckets if the file is larger than that; return how many were deleted, by application."""
    if used_bytes(db) <= max_bytes:
        return {}
    query = f"SELECT app, SUM(LENGTH(cell) + {ROW_BYTES}), IFNULL(since, 0) FROM cells LEFT JOIN apps USING (app) GROUP BY app"
    apps = {app: Stored(size, since) for app, size, since in db.execute(query)}
    dropped = evict(apps, partial(_drop_oldest, db), lambda: used_bytes(db) <= max_bytes - max_bytes // FREED_SHARE)
    db.execute("DELETE FROM apps WHERE app NOT IN (SELECT DISTINCT app FROM cells)")
    return dropped


def _drop_oldest(db: sqlite3.Connection, app: str) -> tuple[int, int]:
    """Return how many buckets were deleted, and their bytes."""
    level = db.execute("SELECT MIN(level) FROM cells WHERE app = ?", (app,)).fetchone()[0]
    found = "SELECT env, at, LENGTH(cell) FROM cells WHERE level = ? AND app = ? ORDER BY at LIMIT ?"
    rows = db.execute(found, (level, app, BUCKETS_AT_ONCE)).fetchall()
    keys = [(level, app, env, at) for env, at, _ in rows]
    db.executemany("DELETE FROM cells WHERE level = ? AND app = ? AND env = ? AND at = ?", keys)
    return len(rows), sum(size + ROW_BYTES for _, _, size in rows)
