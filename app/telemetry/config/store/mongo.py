"""Overrides in MongoDB, one document an application, with the application's name as its `_id`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError
from marshmallow import EXCLUDE, ValidationError
from mongoengine import DateTimeField, Document, FloatField, IntField, ListField, StringField
from mongoengine.errors import OperationError
from pymongo.errors import PyMongoError

from app.clock import Clock, to_datetime
from app.errors import flatten_messages
from app.logs import get_logger
from app.telemetry.config.schemas import OverridesSchema
from app.telemetry.config.store import ConfigUnavailable, Overrides, no_such_overrides

log = get_logger(__name__)
OVERRIDES = OverridesSchema()


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
    """On the connection that app.mongo has made."""

    def __init__(self, clock: Clock):
        self._clock = clock

    def read_all(self) -> dict[str, Overrides]:
        """A document that cannot be understood is left out and logged: the others go on."""
        with _driver_errors():
            documents = list(TelemetryConfig.objects.as_pymongo())
        named = [document for document in documents if isinstance(document["_id"], str)]  # another hand's may be an object
        found = {document.pop("_id"): _understand(document) for document in named}
        return {app: overrides for app, overrides in found.items() if overrides is not None}

    def put(self, app: str, overrides: Overrides) -> None:
        document = {**OVERRIDES.dump(overrides), "updatedAt": to_datetime(self._clock())}
        with _driver_errors():
            TelemetryConfig._get_collection().replace_one({"_id": app}, document, upsert=True)

    def delete(self, app: str) -> None:
        with _driver_errors():
            deleted = TelemetryConfig.objects(app=app).delete()
        if not deleted:
            raise no_such_overrides(app)


def _understand(document: dict[str, Any]) -> Overrides | None:
    """A field that only a newer version knows is passed over, so that going back to an older one keeps the others."""
    try:
        return OVERRIDES.load(document, unknown=EXCLUDE)
    except ValidationError as error:
        log.error("telemetry_config_not_understood", reason=str(flatten_messages(error.normalized_messages())[0]))
        return None


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except (PyMongoError, OperationError, BSONError) as error:
        raise ConfigUnavailable(f"{type(error).__name__}: {str(error)[:200]}") from error
