"""Identifies the sender of a request by its head, before the body is read.

A small body is cheaper to read than its credential to check, and a body that arrived with its head is read anyway. For the others the
credential decides: where it is not valid, the application is called without the body and rejects the request.
"""

from typing import Any
from urllib.parse import parse_qs

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of

SMALL_BYTES = 8192  # a body of at most this size is read without a check


def write_key_of(environ: dict) -> str | None:
    """Return the write key of `X-Write-Key`, else of `?writeKey=`."""
    write_key = environ.get("HTTP_X_WRITE_KEY")
    if write_key is None and environ["QUERY_STRING"]:
        write_key = parse_qs(environ["QUERY_STRING"]).get("writeKey", [None])[0]
    return write_key


def is_small(environ: dict) -> bool:
    """Return whether the declared body is small. A chunked body declares no length, so it is not."""
    return "HTTP_TRANSFER_ENCODING" not in environ and int(environ.get("CONTENT_LENGTH") or 0) <= SMALL_BYTES


class SenderCheck:
    """Callable with the environ of a head. Returns the party to which the request counts, and whether its credential is valid."""

    def __init__(self, gatekeeper: Any, trusted_proxies: int = 0):
        self._gatekeeper = gatekeeper
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: dict) -> tuple[str, bool]:
        """Return `user:<id>` for a token. A write key is public, so its requests count to the address that sent them."""
        address = network_of(forwarded_for(environ, self._trusted_proxies) or environ["REMOTE_ADDR"])
        try:
            identity = self._gatekeeper.from_headers(environ.get("HTTP_AUTHORIZATION"), write_key_of(environ))
        except ApiError:
            return address, False
        is_user = identity is not None and identity.user_id is not None
        return f"user:{identity.user_id}" if is_user else address, identity is not None
