"""The HTTP rate limit: per user where a token says who, else per address. Redis counts for all workers where there is one.

A write key is public and shared by every browser of an application, so its callers are told apart by address; and an IPv6
address by the network it is in, since one customer has a whole /64 to choose from.

While Redis is away each worker counts in its own memory. A request may find out that it is away, none waits for retries.
"""

import math
import time
from contextlib import suppress

from flask import Flask, current_app, request
from flask_limiter import Limiter, RequestLimit
from limits import parse
from limits.errors import StorageError
from limits.strategies import FixedWindowRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.errors import ApiError
from app.http.context import caller, parts
from app.http.errors import render_error
from app.http.fixed_window_storage import FixedWindowStorage
from app.identity.addresses import network_of
from app.identity.identity import Identity
from app.settings import Settings
from app.storage.redis_connection import for_limits

ALREADY_COUNTED = "switchyard.counted"  # in the environ of a request that was counted before it came to Flask
REDIS_OPTIONS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
UNLIMITED = ("/livez", "/readyz", "/healthz", "/metrics")


def init_rate_limits(app: Flask, settings: Settings) -> Limiter:
    limiter = Limiter(
        key_func=_who,
        app=app,
        application_limits=[settings.rate_limit_http],
        application_limits_exempt_when=_is_exempt,
        storage_uri=for_limits(settings.redis_url) if settings.redis_url else f"{FixedWindowStorage.STORAGE_SCHEME[0]}://",
        storage_options=REDIS_OPTIONS if settings.redis_url else {},
        in_memory_fallback_enabled=bool(settings.redis_url),
        strategy="fixed-window",
        on_breach=_refuse,
    )
    if settings.redis_url:
        limiter._fallback_storage = FixedWindowStorage()  # the library's own counts by the system's clock, see fixed_window_storage.py
        limiter._fallback_limiter = FixedWindowRateLimiter(limiter._fallback_storage)
    limit = parse(settings.rate_limit_http)

    @app.before_request
    def count_what_has_no_route():
        """The library passes over addresses that do not exist; asking for them costs as much."""
        if request.endpoint is not None or request.method == "OPTIONS":
            return
        with suppress(StorageError, RedisError):  # the next request with a route finds out, and falls back
            if not limiter.limiter.hit(limit, _who(), "global"):
                parts().metrics.http_rate_limited_total.inc()
                raise ApiError("rate_limited", retry_after_ms=1000)

    return limiter


def _who() -> str:
    try:
        identity = caller()
    except ApiError:
        identity = None  # a wrong credential must not buy a fresh bucket: it counts against the address
    return rate_limit_key(identity, request.remote_addr)


def rate_limit_key(identity: Identity | None, address: str | None) -> str:
    """The name that is counted under."""
    if identity is not None and identity.user_id is not None:
        return f"user:{identity.user_id}"
    return f"ip:{network_of(address or '')}"


def _is_exempt() -> bool:
    """A preflight carries no credential, and refused it would look like a CORS mistake to the browser."""
    return request.path in UNLIMITED or request.method == "OPTIONS" or ALREADY_COUNTED in request.environ


def hit_by(limiter: Limiter, settings: Settings):
    """The same counter for who does not come through Flask: `hit(who)` is False where the limit refuses."""
    limit = parse(settings.rate_limit_http)

    def hit(who: str) -> bool:
        if limiter._storage_dead:
            return False  # only Flask's way looks now and then whether Redis is back
        try:
            return limiter.limiter.hit(limit, who, "global")
        except (StorageError, RedisError):
            return False  # Flask's way is asked, which falls back to counting in memory

    return hit


def count_extra_requests(count: int) -> None:
    """For a request that asks for several things at once: each of them counts as a request of its own, the first one is counted
    already. One that asks for more than the limit allows needs a window in which nothing else was counted. Raises `rate_limited`."""
    if count == 0:
        return
    (limiter,) = current_app.extensions["limiter"]
    limit = parse(parts().settings.rate_limit_http)
    cost = min(count, limit.amount - 1)
    with suppress(StorageError, RedisError):  # the next request finds out, and falls back
        if cost > 0 and not limiter.limiter.hit(limit, _who(), "global", cost=cost):
            parts().metrics.http_rate_limited_total.inc()
            reset_at = limiter.limiter.get_window_stats(limit, _who(), "global").reset_time
            raise ApiError("rate_limited", f"More than {limit} together; wait before trying again.", retry_after_ms=_wait_ms(reset_at))


def _wait_ms(reset_at: float) -> int:
    return max(1, math.ceil((reset_at - time.time()) * 1000))


def _refuse(limit: RequestLimit):
    parts().metrics.http_rate_limited_total.inc()
    message = f"More than {limit.limit}; wait before trying again."
    return render_error(ApiError("rate_limited", message, retry_after_ms=_wait_ms(limit.reset_at)))
