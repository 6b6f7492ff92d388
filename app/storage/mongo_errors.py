"""The one verdict on what MongoDB objects to a write, for every part that writes: events, statistics, durable messages.

MongoDB answers an unordered write with a list of problems, one for each document that it did not take. `judge` sorts them:

- `there`: a document with this `_id` is stored already, so writing it again changed nothing;
- `refused`: MongoDB will never take this document (a validator, a size, a unique index of an operator): report it and keep it;
- `unforeseen`: a code that is in no list here. Nobody knows whether a retry helps, so the document must not be dropped.

Everything that is wrong with the server itself raises ServerUnwell: the whole write has to be repeated later.

Invariant: a document counts as `there` only when its own `_id` is stored. A duplicate key on any other index never does. Where
the answer does not name the index `_id_`, the collection is asked for the `_id`.
"""

import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, DuplicateKeyError, PyMongoError

DUPLICATE_KEY = {11000, 11001, 12582}
# About one document, and the same at the next attempt: a validator, a size, a value, a name or an index that does not fit.
NEVER_TAKEN = {
    2, 9, 14, 15, 22, 28, 40, 52, 53, 54, 55, 56, 57, 66, 116, 121, 171, 201, 10334, 16755, 16756, 16766, 17261, 17262, 17280, 17419, 17420,
}  # fmt: skip
# About the server: unreachable, busy, no primary, a new primary, shutting down, no room, over a quota, not allowed.
UNWELL = {
    6, 7, 13, 18, 24, 46, 50, 63, 64, 89, 91, 100, 112, 133, 134, 150, 189, 202, 249, 262, 371, 391, 462, 8000, 9001, 10058,
    10107, 11600, 11601, 11602, 13388, 13435, 13436, 14031,
}  # fmt: skip
# As mongod writes it where it gives no `keyPattern`, and as FerretDB does. Anchored: the values of the document follow in the text.
NAMES_THE_ID = re.compile(r"E11000 duplicate key error collection: \S+ index: _id_ |Duplicate key violation .*: Index '_id_'$")


# What the driver adds to a reason: its timeouts, its view of all servers (which repeats the reason), the whole answer, error numbers.
ADDED = re.compile(
    r"\s*\(configured timeouts:[^)]*\)|,? ?Timeout: [\d.]+s?, Topology Description: .*|,? full error: .*|\[Errno -?\d+\] ", re.DOTALL
)
LONGEST_REASON = 200


def reason_of(error: BaseException) -> str:
    """One sentence for operators: what is wrong, and the address where a server does not answer. Cut at the end of a word."""
    text = ADDED.sub("", str(error)).strip() or "no reason given"
    reason = textwrap.shorten(text, LONGEST_REASON, placeholder=" …")
    return f"MongoDB does not answer: {reason}" if isinstance(error, ConnectionFailure) else f"{type(error).__name__}: {reason}"


class ServerUnwell(PyMongoError):
    """The server cannot take writes now."""


class Objections(NamedTuple):
    """By the index of the document: those that are stored already, and why the others were not taken."""

    there: list[int]
    refused: dict[int, str]
    unforeseen: dict[int, str]


def judge(problems: Iterable[dict[str, Any]], collection: Collection, id_of: Callable[[int], Any]) -> Objections:
    """`problems` are the `writeErrors` of an answer, `id_of` gives the `_id` of a document by its index. Raises ServerUnwell, and
    PyMongoError where the collection does not answer a question about an `_id`."""
    found, doubtful = Objections([], {}, {}), {}
    for problem in problems:
        code, index, reason = problem.get("code"), problem["index"], problem.get("errmsg", "a document was refused")
        if code in UNWELL:
            raise ServerUnwell(f"{reason} (code {code})")
        if code in DUPLICATE_KEY and _is_about_the_id(problem):
            found.there.append(index)
        elif code in DUPLICATE_KEY:
            doubtful[index] = reason
        elif code in NEVER_TAKEN:
            found.refused[index] = f"MongoDB: {reason}"
        else:
            found.unforeseen[index] = f"{reason} (code {code})"
    return _with_doubtful(found, doubtful, collection, id_of) if doubtful else found


def objection(error: DuplicateKeyError, collection: Collection, id_: Any) -> str | None:
    """To an insert: None where a document with this `_id` is stored, else why MongoDB did not take it. Raises as `judge`."""
    return judge([_problem_of(error)], collection, lambda _: id_).refused.get(0)


def names_the_id(error: DuplicateKeyError) -> bool:
    """True where the `_id` is what exists already. For an upsert: whether its `_id` is stored says nothing about the reason."""
    return _is_about_the_id(_problem_of(error))


def _problem_of(error: DuplicateKeyError) -> dict[str, Any]:
    return {"code": error.code, "errmsg": str(error), **(error.details or {}), "index": 0}


def _is_about_the_id(problem: dict[str, Any]) -> bool:
    pattern = problem.get("keyPattern")
    return list(pattern) == ["_id"] if pattern else NAMES_THE_ID.match(problem.get("errmsg", "")) is not None


def _with_doubtful(found: Objections, doubtful: dict[int, str], collection: Collection, id_of: Callable[[int], Any]) -> Objections:
    ids = {index: id_of(index) for index in doubtful}
    stored = [document["_id"] for document in collection.find({"_id": {"$in": list(ids.values())}}, {"_id": 1})]
    there = [index for index, id_ in ids.items() if id_ in stored]
    refused = {index: f"MongoDB: {reason}" for index, reason in doubtful.items() if index not in there}
    return Objections(sorted(found.there + there), found.refused | refused, found.unforeseen)
