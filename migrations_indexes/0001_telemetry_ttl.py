"""MongoDB deletes events TELEMETRY_TTL_DAYS after they arrived; 0 keeps them for ever."""

from app.storage.migrations import drop_index, set_ttl

COLLECTION = "telemetry_events"
NAME = "createdAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.telemetry_ttl_days} days"


def up(db, settings):
    set_ttl(db[COLLECTION], "createdAt", NAME, settings.telemetry_ttl_days)


def down(db):
    drop_index(db[COLLECTION], NAME)
