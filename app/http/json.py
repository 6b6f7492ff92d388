"""JSON in and out by orjson. What comes in wrong is a 400 of the catalogue, whoever reads it."""

import json
from typing import Any

import orjson
from flask.json.provider import JSONProvider

from app.errors import ApiError

OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


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
    """The value, or ApiError `bad_request`.

    Half of a surrogate pair, which JavaScript writes when it cuts a string through an emoji, is not an error: orjson
    refuses it, so such a text is read again by the standard library and the half becomes U+FFFD.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "surrogate" in str(error):
            return _decode_with_halves(text)
        raise ApiError("bad_request", f"The body is not JSON: {error}.") from None


def _decode_with_halves(text: str | bytes) -> Any:
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse_constant)
        return orjson.loads(json.dumps(_mend(value), ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        raise ApiError("bad_request", f"The body is not JSON: {error}.") from None


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, dict):
        return {_mend(key): _mend(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not JSON")


def decode_object(text: str | bytes) -> dict[str, Any]:
    """The same of what must be an object, as every body here is."""
    value = decode_json(text)
    if not isinstance(value, dict):
        raise ApiError("bad_request", "The body must be a JSON object.")
    return value
