"""The one connection to MongoDB, by mongoengine, so that documents and plain collections share a pool.

The driver's own patience is 30 s; ours is MONGO_TIMEOUT_MS for a whole operation, finding a server included, because
behind telemetry there is a spool and behind flags a snapshot. Nothing connects before the first operation, so this
may be called in any process, but its sockets belong to the one that used them first: call it after the fork.
"""

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import mongoengine
from bson.errors import BSONError
from mongoengine.errors import NotUniqueError, OperationError
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError, ServerSelectionTimeoutError
from pymongo.uri_parser_shared import _validate_uri

from app.settings import SettingsError
from app.storage.errors import StorageUnavailable
from app.storage.mongo_errors import reason_of

DEFAULT_DATABASE = "switchyard"
# Acknowledged means: in the journal, and where there are several servers by most of them. MONGO_URI may say otherwise.
DURABLE = {"w": "majority", "j": True}
AWAY = "MongoDB is away; try again later."  # what callers are told: the driver names addresses inside our network


class StrangeAnswer(PyMongoError):
    """No MongoDB answers so: something between us and it, or a broken one. Nobody knows what became of the write."""


@contextmanager
def answers_understood() -> Iterator[None]:
    """Around a write and the reading of its answer: the driver raises whatever it stumbles over, and so would we."""
    try:
        yield
    except (BSONError, LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise StrangeAnswer(f"an answer that cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


@contextmanager
def driver_errors() -> Iterator[None]:
    """Raise StorageUnavailable for whatever keeps the driver from an answer. A key that exists is for the caller to judge."""
    try:
        yield
    except NotUniqueError:
        raise
    except (PyMongoError, OperationError, BSONError) as error:
        raise StorageUnavailable(reason_of(error), message=AWAY) from error


class Client(MongoClient):
    """Resolves the name of a `mongodb+srv://` address at the first operation, and again at the next one while DNS does not answer.

    One caller asks DNS; those that come meanwhile share its answer, or each would wait for the timeouts of all before it.
    """

    def __init__(self, *arguments, **options):
        self._resolving = Lock()
        self._unresolved, self._unresolved_at = "", 0.0
        super().__init__(*arguments, **options)

    def _get_topology(self):
        if self._opened:
            return super()._get_topology()
        arrived = time.monotonic()
        with self._resolving:
            if self._unresolved_at > arrived:
                raise ServerSelectionTimeoutError(self._unresolved)
            try:
                return super()._get_topology()
            except ConfigurationError as error:
                self._unresolved, self._unresolved_at = f"the name cannot be resolved: {error}", time.monotonic()
                raise ServerSelectionTimeoutError(self._unresolved) from error


def connect(uri: str, timeout_ms: int) -> Database:
    """Raises SettingsError for a URI that cannot be read; a server that is away, or a name that does not resolve, is no error here."""
    try:
        name = _database_of(uri)
        client = Client(
            uri,
            connect=False,
            tz_aware=False,
            uuidRepresentation="standard",
            appname="switchyard",
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            timeoutMS=timeout_ms,
        )
    except OSError as error:
        raise SettingsError(f"switchyard: MONGO_URI is wrong: a file that it names cannot be used: {error.strerror or error}") from None
    except (ValueError, PyMongoError) as error:
        reason = str(error).splitlines()[0]
        if "@" in reason:  # it shows a part of the password
            reason = "in a user's name and password, signs like @ : / are written %40 %3A %2F"
        raise SettingsError(f"switchyard: MONGO_URI is wrong: {reason}") from None
    mongoengine.disconnect()
    # mongoengine would read the address itself, and ask DNS while it does.
    mongoengine.connect(name, mongo_client_class=lambda **_: client, uuidRepresentation="standard")
    return mongoengine.get_db()


def _database_of(uri: str) -> str:
    """Raises PyMongoError and ValueError for what is wrong in an address; asks no DNS, unlike the driver's public `parse_uri`."""
    read = _validate_uri(uri, validate=True, warn=False)
    if read["fqdn"] and _is_ip(read["fqdn"]):
        raise InvalidURI("mongodb+srv:// needs a name and not an IP address; mongodb:// takes one")
    return read["database"] or DEFAULT_DATABASE


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def place(uri: str) -> str:
    """Servers and database, the same for two ways of writing the same: `a:27017,b:27017/shop`. Raises what `connect` objects to."""
    read = _validate_uri(uri, validate=True, warn=False)
    servers = [read["fqdn"]] if read["fqdn"] else sorted(f"{host}:{port}" if port else host for host, port in read["nodelist"])
    return f"{','.join(servers)}/{read['database'] or DEFAULT_DATABASE}"


def target(uri: str) -> str:
    """Which servers and which database, without the login: for sentences, and for comparing with what was noted earlier."""
    parts = urlsplit(uri)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def check(database: Database) -> dict[str, Any]:
    """For health; raises what the driver raises."""
    database.command("ping")
    return {"state": "up"}


def durable_concern(collection: Collection) -> dict[str, Any]:
    """What MONGO_URI says about acknowledging writes, and DURABLE where it does not or asks for none."""
    concern = collection.write_concern
    return {**DURABLE, **concern.document} if concern.acknowledged else DURABLE
