"""Who sends a body that has not come yet: asked of a request's head, before its body is collected.

A small body is cheaper to collect than to ask about; one that came with its head is collected anyway. For the others the
credential of the head decides, and where it does not hold the application is called without the body, to refuse it.
"""

from urllib.parse import parse_qs

from app.errors import ApiError
from app.identity.addresses import forwarded_for, network_of

SMALL_BYTES = 8192  # a body of at most as many is collected without asking


def write_key_of(environ: dict) -> str | None:
    """`X-Write-Key`, else `?writeKey=`."""
    write_key = environ.get("HTTP_X_WRITE_KEY")
    if write_key is None and environ["QUERY_STRING"]:
        write_key = parse_qs(environ["QUERY_STRING"]).get("writeKey", [None])[0]
    return write_key


def is_small(environ: dict) -> bool:
    """What a client declares, and is held to. Chunks declare nothing."""
    return "HTTP_TRANSFER_ENCODING" not in environ and int(environ.get("CONTENT_LENGTH") or 0) <= SMALL_BYTES


class SenderCheck:
    """Called with the environ of a head: (the party that the request counts for, whether its credential holds)."""

    def __init__(self, gatekeeper, trusted_proxies: int = 0):
        self._gatekeeper = gatekeeper
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: dict) -> tuple[str, bool]:
        """A write key is public, so what is sent with it counts for the address that it came from."""
        address = network_of(forwarded_for(environ, self._trusted_proxies) or environ["REMOTE_ADDR"])
        try:
            identity = self._gatekeeper.from_headers(environ.get("HTTP_AUTHORIZATION"), write_key_of(environ))
        except ApiError:
            return address, False
        is_user = identity is not None and identity.user_id is not None
        return f"user:{identity.user_id}" if is_user else address, identity is not None
