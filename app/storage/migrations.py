"""Applies migrations_indexes/ and remembers in the database what was applied.

A migration is `applied`, `pending`, or `changed`: applied once, but for another value of the setting it depends on.

An operator may have made an index of his own with the same keys. With the same options it counts as ours, whatever its name is.
With other options it stays as it is, and the migration stays pending with a sentence that names it; the later ones are applied.
"""

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from app.clock import system_clock
from app.json_values import to_datetime
from app.logs import get_logger
from app.settings import Settings

log = get_logger(__name__)

FOLDER = Path(__file__).parents[2] / "migrations_indexes"
RECORD = "schema_migrations"
NAME = re.compile(r"\d{4}_\w+")
INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND = 27, 26
OPTIONS_CONFLICT, KEYS_CONFLICT = 85, 86
# What makes two indexes of the same keys differ; the rest says how a server stores them.
OPTIONS = ("unique", "sparse", "expireAfterSeconds", "partialFilterExpression", "collation", "hidden")


class IndexConflict(Exception):
    """An index stands where a migration needs another one; the message names both and says what to do."""


class MigrationsPending(Exception):
    """The message names each migration that could not be applied, and why; `done` are the others."""

    def __init__(self, done: list[str], conflicts: dict[str, str]):
        super().__init__("\n".join(f"{name}: {reason}" for name, reason in conflicts.items()))
        self.done = done


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    module: ModuleType

    def fingerprint(self, settings: Settings) -> str:
        make = getattr(self.module, "fingerprint", None)
        return make(settings) if make else ""

    @property
    def why(self) -> str:
        return (self.module.__doc__ or "").strip().partition("\n")[0]


def migrations() -> list[Migration]:
    return [Migration(path.stem, _load(path)) for path in sorted(FOLDER.glob("*.py")) if NAME.fullmatch(path.stem)]


def status(db: Database, settings: Settings) -> list[tuple[Migration, str]]:
    """Each migration with its state, in order. Raises what the driver raises."""
    recorded = {row["_id"]: row.get("fingerprint", "") for row in db[RECORD].find()}
    return [(migration, _state(migration, recorded, settings)) for migration in migrations()]


def migrate(db: Database, settings: Settings) -> list[str]:
    """Applies what is pending or changed, in order, and returns the names. Raises MigrationsPending after all that could be done."""
    done, conflicts = [], {}
    for migration, state in status(db, settings):
        if state == "applied":
            continue
        try:
            migration.module.up(db, settings)
        except IndexConflict as error:
            conflicts[migration.name] = str(error)
            continue
        except OperationFailure as error:
            conflicts[migration.name] = f"MongoDB refuses: {str(error)[:300]}"
            continue
        record = {"fingerprint": migration.fingerprint(settings), "appliedAt": to_datetime(system_clock())}
        db[RECORD].update_one({"_id": migration.name}, {"$set": record}, upsert=True)
        done.append(migration.name)
    if conflicts:
        raise MigrationsPending(done, conflicts)
    return done


def rollback(db: Database, settings: Settings) -> str | None:
    """Takes back the last one that is applied, and returns its name; None where there is none."""
    for migration, state in reversed(status(db, settings)):
        if state != "pending":
            migration.module.down(db)
            db[RECORD].delete_one({"_id": migration.name})
            return migration.name
    return None


def drop_index(collection: Collection, name: str) -> None:
    """For migrations: no error where it is gone already, or goes at this moment by another hand."""
    try:
        collection.drop_index(name)
    except OperationFailure as error:
        if error.code not in (INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND):
            raise


def make_index(collection: Collection, keys: str | list[tuple[str, int]], name: str, **options: Any) -> None:
    """For migrations: nothing is made where an index has these keys and options already, under whatever name. Raises
    IndexConflict where the server refuses because of one with other options."""
    wanted = [(keys, 1)] if isinstance(keys, str) else keys
    standing = collection.index_information()
    if any(_keys_of(index) == wanted and _options_of(index) == options for index in standing.values()):
        return
    try:
        collection.create_index(wanted, name=name, **options)
    except OperationFailure as error:
        obstacle = _obstacle(standing, wanted, name)
        if error.code not in (OPTIONS_CONFLICT, KEYS_CONFLICT) or obstacle is None:
            raise
        needed = f"{_written(wanted)} with {options or 'no options'}"
        raise IndexConflict(_sentence(collection, obstacle, standing[obstacle], needed)) from error


def set_ttl(collection: Collection, field: str, name: str, days: int) -> None:
    """For migrations: documents leave `days` after the date in `field`, never where that is 0. An index of another age is
    replaced where it is ours; one that is right stays, so that doing it again costs nothing. Raises IndexConflict where an index
    of another name deletes documents at another age."""
    wanted_s = days * 86_400 or None
    standing = collection.index_information()
    if standing.get(name, {}).get("expireAfterSeconds") != wanted_s:
        drop_index(collection, name)
    for other, index in standing.items():
        age_s = index.get("expireAfterSeconds")
        if other != name and _keys_of(index) == [(field, 1)] and age_s not in (None, wanted_s):
            wanted = f"documents to be kept for {days} days" if days else "documents to be kept for ever"
            raise IndexConflict(_sentence(collection, other, index, wanted))
    if wanted_s:
        make_index(collection, field, name, expireAfterSeconds=wanted_s)


def _keys_of(index: dict[str, Any]) -> list[tuple[str, Any]]:
    """A server may give a direction as a float: 1.0 is 1."""
    return [(field, direction) for field, direction in index["key"]]


def _options_of(index: dict[str, Any]) -> dict[str, Any]:
    """Those that are set; `false` is the same as absent."""
    return {option: index[option] for option in OPTIONS if index.get(option) not in (None, False)}


def _obstacle(standing: dict[str, dict[str, Any]], keys: list[tuple[str, int]], name: str) -> str | None:
    if name in standing:
        return name
    return next((other for other, index in standing.items() if _keys_of(index) == keys), None)


def _sentence(collection: Collection, name: str, index: dict[str, Any], wanted: str) -> str:
    stands = f"{_written(_keys_of(index))} with {_options_of(index) or 'no options'}"
    return (
        f"the index {name!r} of {collection.name} stands in the way: it is {stands}, and needed is {wanted}. "
        f"Drop it (db.{collection.name}.dropIndex({name!r})) and migrate again."
    )


def _written(keys: list[tuple[str, Any]]) -> str:
    return ", ".join(f"{field} {direction}" for field, direction in keys)


class IndexWatch:
    """Says in the log and to /healthz that migrations wait to be applied; queries are slow and nothing expires until then."""

    def __init__(self, db: Database, settings: Settings):
        self._db = db
        self._settings = settings
        self._missing: list[str] = []

    def look(self) -> None:
        try:
            missing = [migration.name for migration, state in status(self._db, self._settings) if state != "applied"]
        except PyMongoError:
            return  # MongoDB is away: its own check says so
        if missing != self._missing:
            self._missing = missing
            if missing:
                log.warning("indexes_pending", migrations=missing, run="flask indexes migrate")

    def verdict(self) -> dict:
        return {"state": "degraded", "pendingIndexes": self._missing} if self._missing else {}


def _state(migration: Migration, recorded: dict[str, str], settings: Settings) -> str:
    if migration.name not in recorded:
        return "pending"
    return "applied" if recorded[migration.name] == migration.fingerprint(settings) else "changed"


@cache
def _load(path: Path) -> ModuleType:
    """By path, since a module's name cannot begin with a digit."""
    spec = importlib.util.spec_from_file_location(f"migrations_indexes.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
