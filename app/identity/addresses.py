"""Where a request comes from, as a name to count under: one address, or the network that one customer has to choose from."""

import re
from functools import lru_cache
from ipaddress import IPv6Network, ip_address

UNKNOWN = "unknown"
WITH_PORT = re.compile(r"^(\d+\.\d+\.\d+\.\d+|\[[^\]]*\]):\d{1,5}$")


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """An IPv6 address is its /64. Without the port that some proxies write behind it; whatever is no address is UNKNOWN."""
    host = WITH_PORT.sub(r"\1", address).strip("[]").partition("%")[0]
    try:
        ip = ip_address(host)
    except ValueError:
        return UNKNOWN
    return str(ip.ipv4_mapped or IPv6Network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def forwarded_for(environ: dict, trusted_proxies: int) -> str | None:
    """The client's address as the outermost of so many trusted proxies wrote it into X-Forwarded-For; None where it did not."""
    hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    return hops[-trusted_proxies] if trusted_proxies and len(hops) >= trusted_proxies and hops[-trusted_proxies] else None
