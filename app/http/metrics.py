"""`GET /metrics`: Prometheus text, for this machine or for whoever holds METRICS_TOKEN."""

from ipaddress import ip_address

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from app.errors import ApiError
from app.http.context import parts
from app.identity import same_secret

MARKS_OF_A_PROXY = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via")

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics():
    if not (_has_token(parts().settings.metrics_token) or _is_this_machine()):
        raise ApiError("forbidden", "Metrics are for this machine, or for the METRICS_TOKEN as Bearer.")
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
