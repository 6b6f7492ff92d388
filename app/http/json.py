"""JSON in and out by orjson. Wrong JSON is a 400 of the catalogue, whoever reads it.

A text of more than LARGE_BYTES waits for its turn before it is decoded. What decoding costs depends less on the bytes than on the
arrays and objects that have to be made (`[],[],…` takes ten times as long as text of the same length), so a text has a bound on these.
"""

import codecs
import re
from typing import Any

import orjson
from flask.json.provider import JSONProvider

from app.errors import ApiError
from app.serving.fairness import LARGE_BYTES, TimeSlice, yield_before_large, yield_if_slice_is_over

OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
MAX_CONTAINERS = 50_000  # arrays and objects of one text; a batch of a thousand events has a few thousand

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{", b"[\0", b"\0[")  # what a text in it begins with
_ESCAPED_BACKSLASH, _NO_JSON = rb"\\", b"\0\0"  # both two bytes; a raw NUL stands in no JSON
_HIGH, _LOW = rb"[dD][89abAB][0-9a-fA-F]{2}", rb"[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rb"\\u(?:%b(?!\\u%b)|%b(?<!\\u%b\\u%b))" % (_HIGH, _LOW, _LOW, _HIGH, _LOW))
_NO_UTF_8 = "not valid UTF-8"  # in orjson's sentence
_REPLACEMENT = rb"\\ufffd"  # as the template of a substitution, where a backslash is written twice


class FastJson(JSONProvider):
    """A type that JSON does not know becomes its text: somebody else's document in our database must not make a page fail."""

    def dumps(self, obj: Any, **_) -> str:
        return orjson.dumps(obj, default=str, option=OPTIONS).decode()

    def loads(self, s: str | bytes, **_) -> Any:
        return decode_json(s)

    def response(self, *args, **kwargs):
        body = orjson.dumps(self._prepare_response_obj(args, kwargs), default=str, option=OPTIONS)
        return self._app.response_class(body, mimetype="application/json")


def decode_json(text: str | bytes) -> Any:
    """The value. Raises ApiError `bad_request`, and `payload_too_large` where the text has more than MAX_CONTAINERS.

    Two mistakes of clients are repaired: a byte order mark in front, and half of a surrogate pair, which JavaScript writes when it
    cuts a string through an emoji and which becomes U+FFFD.
    """
    yield_if_slice_is_over(len(text))
    if len(text) > LARGE_BYTES:
        text = text.encode("utf-8", "replace") if isinstance(text, str) else text
        admit_large(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        repaired = _repaired(text.encode("utf-8", "replace") if isinstance(text, str) else text)
        if repaired is None:
            raise _no_json(text, error) from None
    yield_before_large(len(repaired))
    try:
        return orjson.loads(repaired)
    except orjson.JSONDecodeError as error:
        raise _no_json(text, error) from None


def _no_json(text: str | bytes, error: Exception) -> ApiError:
    if isinstance(text, bytes):
        if text.startswith(UTF_16):
            return ApiError("bad_request", "The body is not JSON: it is UTF-16; send it as UTF-8.")
        if _NO_UTF_8 in str(error):
            return ApiError("bad_request", "The body is not JSON: it is not UTF-8 (perhaps Latin-1); send it as UTF-8.")
    return ApiError("bad_request", f"The body is not JSON: {error}.")


def admit_large(text: bytes) -> None:
    """For a text of more than LARGE_BYTES, before it is decoded: waits for the turn. Raises ApiError `payload_too_large`."""
    yield_before_large(len(text))
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS and _containers(text) > MAX_CONTAINERS:
        raise ApiError("payload_too_large", f"The body may have at most {MAX_CONTAINERS} arrays and objects.")


def _containers(text: bytes) -> int:
    """Arrays and objects, without the brackets that stand in strings."""
    text = text.replace(_ESCAPED_BACKSLASH, b"").replace(rb"\"", b"")
    count, in_string, time_slice = 0, 0, TimeSlice()
    for start in range(0, len(text), LARGE_BYTES):
        pieces = text[start : start + LARGE_BYTES].split(b'"')  # by turns outside of strings and inside
        outside = b"".join(pieces[in_string::2])
        count += outside.count(b"[") + outside.count(b"{")
        in_string ^= (len(pieces) - 1) % 2
        time_slice.yield_if_over()
    return count


def _repaired(text: bytes) -> bytes | None:
    """None where nothing of it can be repaired. Works on the bytes, at the price of copying them: an escaped backslash is put out
    of the way first, so that whatever then begins with a backslash and a u is an escape."""
    yield_before_large(len(text))
    repaired = text.removeprefix(codecs.BOM_UTF8)
    if rb"\u" in repaired and b"\0" not in repaired:
        escapes = repaired.replace(_ESCAPED_BACKSLASH, _NO_JSON)
        repaired = _LONE_SURROGATE.sub(_REPLACEMENT, escapes).replace(_NO_JSON, _ESCAPED_BACKSLASH)
    return repaired if repaired != text else None


def decode_object(text: str | bytes) -> dict[str, Any]:
    """The same of what must be an object, as every body here is."""
    value = decode_json(text)
    if not isinstance(value, dict):
        raise ApiError("bad_request", "The body must be a JSON object.")
    return value
