"""What BSON has and JSON has not, written as MongoDB's extended JSON, so that a document of another program can be read back.

Our own events hold JSON alone and come out as they went in: also `{"$ref": …, "$id": …}`, which a driver would turn into an
object of its own. So documents are read raw and decoded here. The format:
https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from bson import decode, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.son import SON

# Every document of every program can be decoded: any date, any bytes in a text.
RAW = CodecOptions(
    document_class=RawBSONDocument, unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
ID_OPTIONS = json_util.CANONICAL_JSON_OPTIONS.with_options(document_class=SON, tz_aware=False)  # the order of fields is part of an `_id`
AS_DICT = RAW.with_options(document_class=dict)
REFERENCE = b"\x02$ref\0"
JSON_TYPES = {str, int, bool, type(None)}


def fields_of(document: RawBSONDocument) -> Mapping[str, Any]:
    """The fields, for `plain`: decoded in C where nothing in the document looks like a reference."""
    return document if REFERENCE in document.raw else decode(document.raw, AS_DICT)


def plain(value: Any) -> Any:
    """A value of a raw document, as JSON can hold it."""
    kind = type(value)
    if kind in JSON_TYPES or (kind is float and math.isfinite(value)):
        return value
    if kind is dict or kind is RawBSONDocument:
        return {name: plain(inner) for name, inner in value.items()}
    if kind is list:
        return [plain(inner) for inner in value]
    return orjson.loads(json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS))


def text_of(value: Any) -> str:
    """A text stays what it is; anything else becomes JSON."""
    return value if isinstance(value, str) else orjson.dumps(plain(value)).decode()


def id_to_text(id_: Any) -> str:
    """An `_id` of any type as the text that names it in answers and cursors."""
    return id_ if isinstance(id_, str) else json_util.dumps(id_, json_options=ID_OPTIONS)


def id_from_text(text: str) -> Any:
    """What `id_to_text` was given. Text that is no object of extended JSON is an `_id` of our own."""
    if text.startswith("{"):
        try:
            return json_util.loads(text, json_options=ID_OPTIONS)
        except (ValueError, TypeError, OverflowError, BSONError):
            pass  # an odd text, and still the `_id` of somebody's document
    return text
