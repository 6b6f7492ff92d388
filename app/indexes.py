"""Applies migrations_indexes/ and remembers in the database what was applied.

A migration is `applied`, `pending`, or `changed`: applied once, but for another value of the setting it depends on.
"""

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from app.clock import system_clock, to_datetime
from app.logs import get_logger
from app.settings import Settings

log = get_logger(__name__)

FOLDER = Path(__file__).parent.parent / "migrations_indexes"
RECORD = "schema_migrations"
NAME = re.compile(r"\d{4}_\w+")
INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND = 27, 26


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
    """Applies what is pending or changed, in order, and returns the names."""
    done = []
    for migration, state in status(db, settings):
        if state != "applied":
            migration.module.up(db, settings)
            record = {"fingerprint": migration.fingerprint(settings), "appliedAt": to_datetime(system_clock())}
            db[RECORD].update_one({"_id": migration.name}, {"$set": record}, upsert=True)
            done.append(migration.name)
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


def set_ttl(collection: Collection, field: str, name: str, days: int) -> None:
    """For migrations: documents leave `days` after the date in `field`, never where that is 0. An index of another age is
    replaced; one that is right stays, so that doing it again costs nothing."""
    wanted_s = days * 86_400 or None
    if collection.index_information().get(name, {}).get("expireAfterSeconds") == wanted_s:
        return
    drop_index(collection, name)
    if wanted_s:
        collection.create_index(field, name=name, expireAfterSeconds=wanted_s)


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
