"""Finds the token of a Socket.IO CONNECT and turns it into an Identity."""

from typing import Any
from urllib.parse import parse_qs

from app.errors import ApiError
from app.identity.gatekeeper import Gatekeeper
from app.identity.identity import Identity
from app.realtime.permissions import may_connect
from app.realtime.transport.wire import Unreadable


def identity_of_connect(gatekeeper: Gatekeeper, environ: dict, auth: Any) -> Identity:
    """Return the identity of the first token found: `auth: {token}`, the Authorization header, `?token=`.

    Raises ApiError `bad_request`, `unauthorized` or `forbidden`.
    """
    if isinstance(auth, Unreadable):
        raise ApiError("bad_request", auth.sentence)
    token = auth.get("token") if isinstance(auth, dict) else None
    query = parse_qs(environ.get("QUERY_STRING", "")).get("token")
    if token is not None:
        identity = identity_of(gatekeeper, token)
    elif header := environ.get("HTTP_AUTHORIZATION"):
        identity = gatekeeper.from_headers(header, None)
    elif query:
        identity = identity_of(gatekeeper, query[0])
    else:
        raise ApiError("unauthorized", "A token is needed: auth: {token}, Authorization: Bearer, or ?token=.")
    if not may_connect(identity):
        raise ApiError("forbidden", "A write key may not connect; use a token.")
    return identity


def identity_of(gatekeeper: Gatekeeper, token: Any) -> Identity:
    """Return the identity of a token. Raises ApiError `unauthorized` or `token_expired`."""
    if not isinstance(token, str):
        raise ApiError("unauthorized", "The token must be a string.")
    return gatekeeper.from_headers(f"Bearer {token}", None)
