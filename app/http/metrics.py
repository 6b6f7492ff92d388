"""`GET /metrics`: Prometheus text, for this machine or for whoever holds METRICS_TOKEN."""

from ipaddress import ip_address

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from app.errors import ApiError
from app.http.context import parts
from app.identity import same_secret

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics():
    expected = parts().settings.metrics_token
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not (expected and same_secret(given, expected)) and not _is_loopback(request.remote_addr):
        raise ApiError("forbidden", "Metrics are for this machine, or for the METRICS_TOKEN as Bearer.")
    return Response(parts().metrics.render(), content_type=CONTENT_TYPE_LATEST)


def _is_loopback(address: str | None) -> bool:
    """True only without a proxy in between: behind one on the same machine every stranger would look local."""
    try:
        local = ip_address(address or "").is_loopback
    except ValueError:
        return False
    return local and not request.headers.get("X-Forwarded-For")
