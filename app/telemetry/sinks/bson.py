"""Events as BSON, twice as fast as by way of dictionaries.

A document is put together from pieces that are encoded once for many events (the envelope's fields, the type, the time of
arrival) and the few that differ; only objects go through the driver's encoder. The layout is
bsonspec.org's: an element is a type byte, a name ending in NUL, and a value.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from struct import Struct
from struct import error as StructError
from typing import Any

from bson import encode as encode_document
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from app.json_values import parse_timestamp, to_ms
from app.telemetry.event import StoredEvent
from app.telemetry.extended_json import fields_of, id_from_text, id_to_text, plain, text_of

_int32 = Struct("<i").pack
_int32_size = 4
_int32_at = Struct("<i").unpack_from
_begin = Struct("<i5si").pack
_int64 = Struct("<q").pack
NOT_ENCODABLE = (BSONError, StructError, UnicodeError, OverflowError, RecursionError)
FIXED_BYTES = len(_begin(0, b"", 0) + b"\0\x02name\0....\0\x09ts\0........\x03props\0")
LIST_HEAD_BYTES = 4 + len(b"\x04\0....")  # the document's length, then the name, which is empty, and length of the list
STORED_NAMES = dict(zip(StoredEvent.__struct_fields__, StoredEvent.__struct_encode_fields__, strict=True))
SHARED = [(name, b"\x02%b\0" % STORED_NAMES[name].encode()) for name in ("app", "env", "release", "user_id", "session_id", "type")]


def encode_events(events: list[StoredEvent]) -> list[bytes]:
    """A document each, absent fields left out."""
    documents = []
    known: dict[tuple, bytes] = {}  # the kinds of event take turns within a batch
    for event, props in zip(events, _encoded_props(events), strict=True):
        key = (event.app, event.env, event.release, event.user_id, event.session_id, event.type, event.created_at)
        shared = known.get(key)
        if shared is None:
            shared = known[key] = _shared_elements(event)
        id_, name, rest = event.id.encode(), event.name.encode(), b"\0"
        if event.user is not None:
            rest = b"\x03user\0" + encode_document(event.user) + rest
        if event.raw_ts is not None:
            rest = b"\x09rawTs\0" + _int64(event.raw_ts) + rest
        length = len(id_) + len(shared) + len(name) + len(props) + len(rest) + FIXED_BYTES
        documents.append(b"".join((
            _begin(length, b"\x02_id\0", len(id_) + 1), id_, b"\0", shared, b"\x02name\0", _int32(len(name) + 1), name,
            b"\0\x09ts\0", _int64(event.ts), b"\x03props\0", props, rest,
        )))  # fmt: skip
    return documents


def _encoded_props(events: list[StoredEvent]) -> Iterator[bytes]:
    """All in one call of the driver's encoder, as a list: to begin a call costs it as much as the props of an event. An
    element of the list is a type byte, its index as text ending in NUL, and the document, which begins with its length."""
    packed = encode_document({"": [event.props for event in events]})
    end = LIST_HEAD_BYTES
    for _ in events:
        start = packed.index(0, end) + 1
        end = start + _int32_at(packed, start)[0]
        yield packed[start:end]


def encode_or_reason(events: list[StoredEvent]) -> list[bytes | str]:
    """The same for events of doubtful origin: a document each, or the reason why there cannot be one."""
    try:
        return [_with_own_id(document, event.id) for document, event in zip(encode_events(events), events, strict=True)]
    except NOT_ENCODABLE as error:
        if len(events) == 1:
            return [f"{type(error).__name__}: {str(error)[:200]}"]
    return [result for event in events for result in encode_or_reason([event])]


def _with_own_id(document: bytes, id_: str) -> bytes:
    """A document of another program keeps its `_id`, which may be no text; our own begins with the length and the `_id`."""
    own = id_from_text(id_)
    if isinstance(own, str):
        return document
    rest = document[len(_begin(0, b"", 0)) + len(id_.encode()) + 1 :]
    head = encode_document({"_id": own})[_int32_size:-1]
    return _int32(_int32_size + len(head) + len(rest)) + head + rest


def _shared_elements(event: StoredEvent) -> bytes:
    elements = b""
    for name, head in SHARED:
        value = getattr(event, name)
        if value is not None:
            text = value.encode()
            elements += b"%b%b%b\0" % (head, _int32(len(text) + 1), text)
    moment = _int64(event.created_at)
    return elements + b"\x09createdAt\0" + moment + b"\x09updatedAt\0" + moment


def decode_event(document: RawBSONDocument) -> StoredEvent:
    """From a document that was read as `extended_json.RAW`. Another program may have written it: a text of another type becomes
    text, a time that is none is left out, and so is what is missing; `props` is then empty."""
    fields = fields_of(document)
    return StoredEvent(**{own: decode(fields.get(STORED_NAMES[own])) for own, decode in DECODERS.items()})


def _text(value: Any) -> str | None:
    return None if value is None else text_of(value)


def _moment(value: Any) -> int | None:
    return to_ms(value) if isinstance(value, datetime) else parse_timestamp(value)


DECODERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("app", "env", "release", "user_id", "session_id", "type", "name"), _text),
    **dict.fromkeys(("ts", "raw_ts", "created_at"), _moment),
    "id": id_to_text,
    "props": lambda value: {} if value is None else plain(value),
    "user": plain,
}
