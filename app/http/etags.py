"""ETags for whatever can be read again or changed: If-None-Match on the way in, 304 on the way out, If-Match before a change.

A tag is the fingerprint of a record, not of the bytes of an answer (see app/storage/fingerprint.py).
"""

import re
from collections.abc import Callable

from flask import Flask, Response, request
from marshmallow import Schema, fields

OF_A_PROXY = re.compile(r'(?:W/)?"([^"]*?)(?:(?:--?|;)(?:gzip|br|zstd|deflate))*"')

ETAG = {"ETag": {"schema": {"type": "string"}, "description": "Names this state; for If-Match and If-None-Match."}}
NOT_MODIFIED = {304: {"description": "It still is what If-None-Match names."}}


def init_etags(app: Flask) -> None:
    app.before_request(_undo_proxies)


def _undo_proxies() -> None:
    """A proxy that compresses weakens a tag on its way out (`W/"a"`), or writes the coding into it (`"a-gzip"`, by Apache's
    mod_deflate; `"a;gzip"`, `"a--gzip"`, `"a-br"` by others), and gives it back to us so. Ours never end like that."""
    for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
        if (given := request.environ.get(name)) is not None:
            request.environ[name] = OF_A_PROXY.sub(r'"\1"', given)


class IfNoneMatchSchema(Schema):
    if_none_match = fields.String(data_key="If-None-Match", metadata={"description": "An ETag seen before."})


class ETags(fields.String):
    """`"a", "b"` -> {"a", "b"}; `*` -> None, since what is not there is 404 anyway.

    A weak tag counts like a strong one, against the letter of RFC 9110: a proxy that compresses weakens our tags on
    their way out, and they name the state of a record.
    """

    ONE = r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
    ALL = re.compile(rf"\s*{ONE}\s*(?:,\s*{ONE}\s*)*")
    default_error_messages = {"invalid": 'Not an ETag: it is written with its quotes, like "5f0c…", or *.'}

    def _deserialize(self, value, attr, data, **kwargs):
        if value.strip() == "*":
            return None
        if not self.ALL.fullmatch(value):
            raise self.make_error("invalid")
        return frozenset(re.findall(self.ONE, value))


class IfMatchSchema(Schema):
    if_match = ETags(
        data_key="If-Match",
        metadata={"description": "The ETag that was read; 412 where it has changed since. Without it the last write wins."},
    )


def unless_known(etag: str, make: Callable[[], Response]) -> Response:
    """What `make` gives, or 304 where If-None-Match names it already."""
    is_known = request.if_none_match.contains_weak(etag)
    return with_etag(Response(status=304) if is_known else make(), etag)


def with_etag(answer: Response, etag: str) -> Response:
    """`no-cache` means: keep it, but ask every time. The answer is one caller's own."""
    answer.set_etag(etag)
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.vary.update(["Authorization", "X-Write-Key"])
    return answer
