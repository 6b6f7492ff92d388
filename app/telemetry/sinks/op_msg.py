"""A command with documents that are encoded already, as one message of MongoDB's wire protocol (OP_MSG).

The connection is the driver's, with its login, TLS, choice of a server and timeouts; ours is the message alone. The driver
would ask each document for its bytes and open a session for nothing, which together is more than all else that it does.
"""

from collections.abc import Sequence
from itertools import count
from struct import Struct
from typing import Any

import pymongo
from bson import encode
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

OP_MSG = 2013
ONE_DOCUMENT, MANY_DOCUMENTS = 0, 1  # the kinds of section that a message is made of
LIST = b"documents\0"
_head = Struct("<iiiiIB").pack  # length, number, answer to, what it is; flags; kind of the first section
_list_head = Struct("<Bi").pack
_numbers = count(1)


def send(database: Database, command: dict[str, Any], documents: Sequence[bytes], timeout_s: float | None = None) -> dict[str, Any]:
    """The answer to a write command whose `documents` these are. Raises what the driver raises, after `timeout_s`, or the
    driver's own patience. Where the server refuses the command as a whole it is given to the driver, who knows what follows
    from that: another login, another primary. So it must be one that may be sent twice."""
    with pymongo.timeout(timeout_s or database.client.options.timeout):
        answer = _exchange(database, command, documents)
        return answer if answer.get("ok") else database.command({**command, "documents": [RawBSONDocument(raw) for raw in documents]})


def _exchange(database: Database, command: dict[str, Any], documents: Sequence[bytes]) -> dict[str, Any]:
    number, addressed = next(_numbers) & 0x7FFFFFFF, {**command, "$db": database.name}
    with database.client._conn_for_writes(None, "insert") as connection:
        connection.apply_timeout(addressed)
        connection.send_message(message(number, addressed, documents), 0)
        answer = connection.receive_message(number)
        try:
            return answer.unpack_response()[0]
        except Exception:
            connection.close_conn(None)  # the driver does so itself only for what it cannot receive
            raise


def message(number: int, command: dict[str, Any], documents: Sequence[bytes]) -> bytes:
    """Its layout: https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md"""
    body = encode(command)
    list_length = 4 + len(LIST) + sum(map(len, documents))
    length = 16 + 4 + 1 + len(body) + 1 + list_length
    return b"".join((_head(length, number, 0, OP_MSG, 0, ONE_DOCUMENT), body, _list_head(MANY_DOCUMENTS, list_length), LIST, *documents))
