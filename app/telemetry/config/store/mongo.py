"""Overrides in MongoDB, one document an application, with the application's name as its `_id`."""

from typing import Any

from marshmallow import EXCLUDE, ValidationError
from mongoengine import DateTimeField, Document, FloatField, IntField, ListField, StringField
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from app.clock import Clock
from app.errors import ApiError, flatten_messages
from app.json_values import to_datetime
from app.logs import get_logger
from app.storage.mongo import driver_errors
from app.storage.mongo_errors import names_the_id
from app.telemetry.config.schemas import OverridesSchema
from app.telemetry.config.store import Overrides, no_such_overrides

log = get_logger(__name__)
OVERRIDES = OverridesSchema()
FIELDS = [field.data_key or name for name, field in OVERRIDES.fields.items()]


class TelemetryConfig(Document):
    meta = {"collection": "telemetry_config", "auto_create_index": False, "strict": False}

    app = StringField(primary_key=True)
    sample_rate = FloatField(db_field="sampleRate")
    max_batch = IntField(db_field="maxBatch")
    flush_interval_ms = IntField(db_field="flushIntervalMs")
    allow = ListField(StringField())
    deny = ListField(StringField())
    updated_at = DateTimeField(db_field="updatedAt")


class MongoConfigStore:
    """On the connection that app.storage.mongo has made."""

    def __init__(self, clock: Clock):
        self._clock = clock

    @property
    def _collection(self) -> Collection:
        return TelemetryConfig._get_collection()

    def read_all(self) -> dict[str, Overrides]:
        """A document that cannot be understood is left out and logged: the others go on."""
        with driver_errors():
            documents = list(TelemetryConfig.objects.as_pymongo())
        named = [document for document in documents if isinstance(document["_id"], str)]  # another hand's may be an object
        found = {document.pop("_id"): _understand(document) for document in named}
        return {app: overrides for app, overrides in found.items() if overrides is not None}

    def put(self, app: str, overrides: Overrides, expected: Overrides | None = None) -> None:
        document = {**OVERRIDES.dump(overrides), "updatedAt": to_datetime(self._clock())}
        with driver_errors():
            is_written = self._replace(_where(app, expected), document, may_be_new=not expected)
        # Not found, yet equal: the driver repeated a write whose first answer was lost.
        if not is_written and self.read_all().get(app, {}) != overrides:
            raise ApiError("precondition_failed")

    def delete(self, app: str, expected: Overrides | None = None) -> None:
        with driver_errors():
            if self._collection.delete_one(_where(app, expected)).deleted_count:
                return
            is_there = self._collection.count_documents({"_id": app}) > 0
        raise ApiError("precondition_failed") if is_there else no_such_overrides(app)

    def _replace(self, wanted: dict[str, Any], document: dict[str, Any], *, may_be_new: bool) -> bool:
        """Where nothing is wanted to be there it becomes an insert, which the `_id` refuses if something is. A unique index of an
        operator may refuse it, too: that is no answer to what is there."""
        try:
            result = self._collection.replace_one(wanted, document, upsert=may_be_new)
        except DuplicateKeyError as error:
            if names_the_id(error):
                return False
            log.warning("telemetry_config_refused", app=wanted["_id"], reason=str(error))
            raise ApiError("refused", "The database does not take this configuration; the server's log says why.") from None
        return bool(result.matched_count or result.upserted_id)


def _where(app: str, expected: Overrides | None) -> dict[str, Any]:
    """The document of an application, with just these overrides where they are given; None finds a field that is not there."""
    if expected is None:
        return {"_id": app}
    return {"_id": app, **dict.fromkeys(FIELDS), **OVERRIDES.dump(expected)}


def _understand(document: dict[str, Any]) -> Overrides | None:
    """A field that only a newer version knows is passed over, so that going back to an older one keeps the others."""
    try:
        return OVERRIDES.load(document, unknown=EXCLUDE)
    except ValidationError as error:
        log.error("telemetry_config_not_understood", reason=str(flatten_messages(error.normalized_messages())[0]))
        return None
