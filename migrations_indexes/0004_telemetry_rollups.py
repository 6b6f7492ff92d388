"""Statistics are read by app, level and time. MongoDB deletes them TELEMETRY_TTL_DAYS after their last event; 0 keeps them for ever."""

from app.storage.migrations import drop_index, make_index, set_ttl

COLLECTION = "telemetry_rollups"
QUERY = "app_level_at"
TTL = "updatedAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.telemetry_ttl_days} days"


def up(db, settings):
    make_index(db[COLLECTION], [("app", 1), ("level", 1), ("at", 1)], QUERY)
    set_ttl(db[COLLECTION], "updatedAt", TTL, settings.telemetry_ttl_days)


def down(db):
    for name in (QUERY, TTL):
        drop_index(db[COLLECTION], name)
