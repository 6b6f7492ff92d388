"""`GET /metrics`: Prometheus text for the bearer of METRICS_TOKEN, and in development for this machine.

In production the address decides nothing: behind a proxy that adds no header every stranger looks like this machine.
"""

from ipaddress import ip_address

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from app.errors import ApiError
from app.http.context import parts
from app.identity.gatekeeper import same_secret

MARKS_OF_A_PROXY = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via")
NOT_SET = "In production /metrics needs METRICS_TOKEN: set it, and send it as Authorization: Bearer."
NOT_GIVEN = "Metrics are for the bearer of METRICS_TOKEN; send it as Authorization: Bearer."

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics():
    settings = parts().settings
    is_local = not settings.is_production and _is_this_machine()
    if not (is_local or _has_token(settings.metrics_token)):
        raise ApiError("forbidden", NOT_GIVEN if settings.metrics_token else NOT_SET if settings.is_production else None)
    return Response(parts().metrics.render(), content_type=CONTENT_TYPE_LATEST)


def _has_token(expected: str | None) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return expected is not None and scheme.lower() == "bearer" and same_secret(given.strip(), expected)


def _is_this_machine() -> bool:
    """True only without a proxy in between: behind one on the same machine every stranger would look local."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:
        return False
    is_loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return is_loopback and not any(name in request.headers for name in MARKS_OF_A_PROXY)
