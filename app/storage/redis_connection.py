"""Redis for health, and its address in the form that the rate limit's library reads."""

from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

ANSWERS_S = 1.0
PROBE, PROBE_LASTS_S = "switchyard:health", 60


def connect(url: str) -> Redis:
    """Nothing connects before the first command."""
    return Redis.from_url(url, socket_timeout=ANSWERS_S, socket_connect_timeout=ANSWERS_S, retry=None)


def check(redis: Redis) -> dict[str, Any]:
    """For health: a write, since a Redis that is full, read-only or cannot save answers a PING all the same. Raises what the
    driver raises where it does not answer."""
    try:
        redis.set(PROBE, 1, ex=PROBE_LASTS_S)
    except RedisConnectionError:
        raise
    except ResponseError as error:
        return {"state": "degraded", "error": f"it takes no writes: {str(error)[:200]}"}
    return {"state": "up"}


def for_limits(url: str) -> str:
    return f"redis+{url}" if url.startswith("unix://") else url
