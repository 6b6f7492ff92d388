"""The HTTP rate limit: per user where a token says who, else per address. Redis counts for all workers where there is one.

A write key is public and shared by every browser of an application, so its callers are told apart by address.
"""

import math
import time

from flask import Flask, request
from flask_limiter import Limiter, RequestLimit
from limits import parse
from limits.errors import StorageError
from redis.exceptions import RedisError

from app.errors import ApiError
from app.http.context import caller, parts
from app.http.errors import render_error
from app.settings import Settings

ALREADY_COUNTED = "switchyard.counted"  # in the environ of a request that was counted before it came to Flask
UNLIMITED = ("/livez", "/readyz", "/healthz", "/metrics")


def init_limits(app: Flask, settings: Settings) -> Limiter:
    return Limiter(
        key_func=_who,
        app=app,
        application_limits=[settings.rate_limit_http],
        application_limits_exempt_when=_is_exempt,
        storage_uri=settings.redis_url or "memory://",
        storage_options={"socket_timeout": 1.0, "socket_connect_timeout": 1.0} if settings.redis_url else {},
        in_memory_fallback_enabled=bool(settings.redis_url),
        strategy="fixed-window",
        on_breach=_refuse,
    )


def _who() -> str:
    try:
        identity = caller()
    except ApiError:
        identity = None  # a wrong credential must not buy a fresh bucket: it counts against the address
    if identity is not None and identity.user_id is not None:
        return f"user:{identity.user_id}"
    return f"ip:{request.remote_addr}"


def _is_exempt() -> bool:
    return request.path in UNLIMITED or ALREADY_COUNTED in request.environ


def hit_by(limiter: Limiter, settings: Settings):
    """The same counter for who does not come through Flask: `hit(who)` is False where the limit refuses."""
    limit = parse(settings.rate_limit_http)

    def hit(who: str) -> bool:
        try:
            return limiter.limiter.hit(limit, who, "global")
        except (StorageError, RedisError):
            return False  # Flask's way is asked, which falls back to counting in memory

    return hit


def _refuse(limit: RequestLimit):
    parts().metrics.http_rate_limited_total.inc()
    wait_ms = max(1, math.ceil((limit.reset_at - time.time()) * 1000))
    message = f"More than {limit.limit}; wait before trying again."
    return render_error(ApiError("rate_limited", message, retry_after_ms=wait_ms))
