"""Events leave by themselves TELEMETRY_TTL_DAYS after they arrived; 0 keeps them for ever."""

COLLECTION = "telemetry_events"
NAME = "createdAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.telemetry_ttl_days} days"


def up(db, settings):
    down(db)
    if settings.telemetry_ttl_days:
        db[COLLECTION].create_index("createdAt", name=NAME, expireAfterSeconds=settings.telemetry_ttl_days * 86_400)


def down(db):
    if NAME in db[COLLECTION].index_information():
        db[COLLECTION].drop_index(NAME)
