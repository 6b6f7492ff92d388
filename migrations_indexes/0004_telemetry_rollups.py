"""What the statistics are read by; they leave with the last of their events, TELEMETRY_TTL_DAYS after it arrived; 0 keeps them for ever."""

COLLECTION = "telemetry_rollups"
QUERY = "app_level_at"
TTL = "updatedAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.telemetry_ttl_days} days"


def up(db, settings):
    down(db)
    db[COLLECTION].create_index([("app", 1), ("level", 1), ("at", 1)], name=QUERY)
    if settings.telemetry_ttl_days:
        db[COLLECTION].create_index("updatedAt", name=TTL, expireAfterSeconds=settings.telemetry_ttl_days * 86_400)


def down(db):
    present = db[COLLECTION].index_information()
    for name in (QUERY, TTL):
        if name in present:
            db[COLLECTION].drop_index(name)
