"""Events leave by themselves TELEMETRY_TTL_DAYS after they arrived; 0 keeps them for ever."""

from app.indexes import drop_index

COLLECTION = "telemetry_events"
NAME = "createdAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.telemetry_ttl_days} days"


def up(db, settings):
    """An index of another age is replaced; one that is right stays, so that doing it again costs nothing."""
    wanted_s = settings.telemetry_ttl_days * 86_400 or None
    present_s = db[COLLECTION].index_information().get(NAME, {}).get("expireAfterSeconds")
    if present_s == wanted_s:
        return
    down(db)
    if wanted_s:
        db[COLLECTION].create_index("createdAt", name=NAME, expireAfterSeconds=wanted_s)


def down(db):
    drop_index(db[COLLECTION], NAME)
