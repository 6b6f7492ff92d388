"""GET /api/telemetry/events filters and sorts by app and type, by app and name, or by time alone."""

from app.storage.migrations import drop_index, make_index

COLLECTION = "telemetry_events"
INDEXES = {
    "app_type_ts": [("app", 1), ("type", 1), ("ts", -1)],
    "app_name_ts": [("app", 1), ("name", 1), ("ts", -1)],
    "ts_id": [("ts", -1), ("_id", -1)],
}


def up(db, settings):
    for name, keys in INDEXES.items():
        make_index(db[COLLECTION], keys, name)


def down(db):
    for name in INDEXES:
        drop_index(db[COLLECTION], name)
