"""Durable messages are replayed by topic, epoch and seq. MongoDB deletes them after RT_DURABLE_TTL_DAYS; 0 keeps them for ever."""

from app.storage.migrations import drop_index, make_index, set_ttl

COLLECTION = "realtime_messages"
PLACE = "topic_epoch_seq"
TTL = "createdAt_ttl"


def fingerprint(settings) -> str:
    return f"{settings.rt_durable_ttl_days} days"


def up(db, settings):
    make_index(db[COLLECTION], [("topic", 1), ("epoch", 1), ("seq", 1)], PLACE)
    set_ttl(db[COLLECTION], "createdAt", TTL, settings.rt_durable_ttl_days)


def down(db):
    drop_index(db[COLLECTION], PLACE)
    drop_index(db[COLLECTION], TTL)
