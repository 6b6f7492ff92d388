"""Identifies the sender of a request from its head, before the body is read.

Reading a small body costs less than checking its credential, and a body that arrived with its head has been read already. The server
reads any other body only where the credential is valid. Otherwise the application gets no body, and rejects the request.
"""

from typing import Any
from urllib.parse import parse_qs

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of

SMALL_BYTES = 8192  # the largest body that is read without a check


def write_key_of(environ: dict) -> str | None:
    """Return the write key in the header `X-Write-Key`, or else in `?writeKey=`."""
    write_key = environ.get("HTTP_X_WRITE_KEY")
    if write_key is None and environ["QUERY_STRING"]:
        write_key = parse_qs(environ["QUERY_STRING"]).get("writeKey", [None])[0]
    return write_key


def is_small(environ: dict) -> bool:
    """Return whether the head declares a small body. A chunked body declares no length, so it is not small."""
    return "HTTP_TRANSFER_ENCODING" not in environ and int(environ.get("CONTENT_LENGTH") or 0) <= SMALL_BYTES


class SenderCheck:
    """Call it with the environ of a head. It returns the party whose request it is, and whether the credential is valid."""

    def __init__(self, gatekeeper: Any, trusted_proxies: int = 0):
        self._gatekeeper = gatekeeper
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: dict) -> tuple[str, bool]:
        """Return (`user:<id>`, True) for a token. Any client may know a write key, so there the party is the client's address."""
        address = network_of(forwarded_for(environ, self._trusted_proxies) or environ["REMOTE_ADDR"])
        try:
            identity = self._gatekeeper.from_headers(environ.get("HTTP_AUTHORIZATION"), write_key_of(environ))
        except ApiError:
            return address, False
        is_user = identity is not None and identity.user_id is not None
        return f"user:{identity.user_id}" if is_user else address, identity is not None
