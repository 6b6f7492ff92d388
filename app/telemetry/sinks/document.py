"""The event as MongoDB holds it. The class is the record of collection, fields and indexes; the indexes are made by
migrations_indexes/, and events are inserted as plain dicts, since a document object for each would cost more than the rest."""

from mongoengine import DateTimeField, DictField, Document, StringField


class TelemetryEvent(Document):
    id = StringField(primary_key=True)
    app = StringField(required=True)
    env = StringField()
    release = StringField()
    user_id = StringField(db_field="userId")
    session_id = StringField(db_field="sessionId")
    user = DictField()
    type = StringField(required=True)
    name = StringField(required=True)
    props = DictField()
    ts = DateTimeField(required=True)
    raw_ts = DateTimeField(db_field="rawTs")
    created_at = DateTimeField(db_field="createdAt", required=True)
    updated_at = DateTimeField(db_field="updatedAt", required=True)

    meta = {"collection": "telemetry_events", "auto_create_index": False, "id_field": "id"}
