"""Stores flags in MongoDB, one document each. `_id` is the key, so keys are unique even before the indexes exist.

Queries use `key` and not `_id`: documents that were inserted manually have an `_id` of their own.
"""

from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, ValidationError
from mongoengine import BooleanField, DateTimeField, DictField, Document, IntField, StringField
from mongoengine.errors import NotUniqueError
from pymongo.errors import DuplicateKeyError

from app.errors import ApiError, flatten_messages
from app.flags.flag import Flag
from app.flags.schemas import read_record
from app.flags.store import flag_exists, no_such_flag
from app.json_values import to_datetime, to_ms
from app.logs import get_logger
from app.storage.errors import StorageUnavailable
from app.storage.mongo import driver_errors
from app.storage.mongo_errors import objection

log = get_logger(__name__)


class FlagDocument(Document):
    """One flag. Migrations create the indexes, a unique one on `key` among them."""

    meta = {"collection": "flags", "auto_create_index": False, "strict": False}

    id = StringField(primary_key=True)
    key = StringField(required=True)
    enabled = BooleanField(required=True)
    rules = DictField()
    start_at = DateTimeField(db_field="startAt", null=True)
    end_at = DateTimeField(db_field="endAt", null=True)
    description = StringField(null=True)
    version = IntField(required=True)
    updated_at = DateTimeField(db_field="updatedAt", required=True)


class MongoFlagStore:
    """Uses the connection of `app.storage.mongo`."""

    def __init__(self):
        self._read: dict[str, tuple[dict, Flag | None]] = {}  # by _id_of: the document read last, and its flag

    def list_all(self) -> list[Flag]:
        """Return the flags. A document with mistakes is omitted, so its flag is off, and logged once."""
        with driver_errors():
            documents = list(FlagDocument.objects.as_pymongo())
        self._read = {_id_of(document): (document, self._cached_flag(document)) for document in documents}
        return [flag for _, flag in self._read.values() if flag is not None]

    def get(self, key: str) -> Flag:
        """Return one flag. Raises not_found."""
        with driver_errors():
            document = FlagDocument.objects(key=key).as_pymongo().first()
        if document is None:
            raise no_such_flag(key)
        try:
            return _to_flag(document)
        except ValidationError as error:
            reason = f"flag {key}: {_first_mistake(error)}"
            raise StorageUnavailable(reason, message=f"The stored flag cannot be used: {reason}") from None

    def create(self, flag: Flag) -> None:
        """Add a flag. Raises conflict, and refused when another unique index forbids it."""
        document = FlagDocument(id=flag.key, **_to_fields(flag)).to_mongo()
        with driver_errors():
            if _is_there(flag.key):
                raise flag_exists(flag.key)
            try:
                FlagDocument._get_collection().insert_one(document)
            except DuplicateKeyError as error:
                reason = objection(error, FlagDocument._get_collection(), flag.key)
                raise flag_exists(flag.key) if reason is None or _is_there(flag.key) else _refused(flag.key, reason) from None

    def replace(self, flag: Flag, expected_version: int) -> None:
        """Replace a flag. Raises not_found, precondition_failed and refused."""
        changes = {f"set__{name}": value for name, value in _to_fields(flag).items()}
        try:
            with driver_errors():
                found = FlagDocument.objects(__raw__=_where(flag.key, expected_version)).update_one(**changes)
        except NotUniqueError as error:
            raise _refused(flag.key, str(error)) from None
        # The version has changed but the flag is equal: the driver repeated a write whose first answer was lost.
        if not found and self.get(flag.key) != flag:
            raise ApiError("precondition_failed")

    def delete(self, key: str, expected_version: int | None) -> None:
        """Delete a flag. Raises not_found and precondition_failed."""
        with driver_errors():
            if FlagDocument.objects(__raw__=_where(key, expected_version)).delete():
                return
            if expected_version is not None and _is_there(key):
                raise ApiError("precondition_failed")
        raise no_such_flag(key)

    def _cached_flag(self, document: dict) -> Flag | None:
        before = self._read.get(_id_of(document))
        if before and before[0] == document:
            return before[1]
        try:
            return _to_flag(document)
        except ValidationError as error:
            log.error("flag_not_understood", key=document.get("key"), reason=_first_mistake(error))
            return None


def _is_there(key: str) -> bool:
    return FlagDocument.objects(key=key).count() > 0


def _refused(key: str, reason: str) -> ApiError:
    """Return the error for a write that MongoDB refuses, for example because of a unique index of the operator."""
    log.warning("flag_refused", key=key, reason=reason)
    return ApiError("refused", f"The database does not take the flag {key}; the server's log says why.")


def _where(key: str, version: int | None) -> dict[str, Any]:
    """Return the filter for one version of a flag. A document without a version, inserted manually, counts as version 1."""
    if version is None:
        return {"key": key}
    return {"key": key, "version": {"$in": [version, None]} if version == Flag.version else version}


def _id_of(document: dict) -> str:
    """Return the `_id` as a dictionary key: in a document inserted manually it may be of any type."""
    return repr(document["_id"])


def _to_fields(flag: Flag) -> dict[str, Any]:
    return {
        "key": flag.key,
        "enabled": flag.enabled,
        "rules": dict(flag.rules),
        "start_at": None if flag.start_at is None else to_datetime(flag.start_at),
        "end_at": None if flag.end_at is None else to_datetime(flag.end_at),
        "description": flag.description,
        "version": flag.version,
        "updated_at": to_datetime(flag.updated_at),
    }


def _to_flag(document: dict) -> Flag:
    """Ignore unknown fields, so that an older version of Switchyard still reads the flags of a newer one. An unknown rule
    is a mistake."""
    record = {name: to_ms(value) if isinstance(value, datetime) else value for name, value in document.items() if name != "_id"}
    return read_record(record, written_at=0, unknown=EXCLUDE)


def _first_mistake(error: ValidationError) -> str:
    first = flatten_messages(error.normalized_messages())[0]
    return f"{first['path']}: {first['message']}"
