"""Three questions of an orchestrator: is the process alive, may it get traffic, and what is wrong. Others see less of it."""

from flask import Blueprint, jsonify

from app.errors import ApiError
from app.http.context import is_admin_calling, parts
from app.http.errors import render_error

PUBLIC_FIELDS = ("state", "latencyMs")
NOT_READY = ApiError("unavailable", "This process takes no traffic now; /healthz says why.", retry_after_ms=1000)

blueprint = Blueprint("health", __name__)


@blueprint.get("/livez")
def livez():
    return jsonify(ok=True)


@blueprint.get("/readyz")
def readyz():
    ready, _ = parts().health.report()
    return jsonify(ok=True) if ready else render_error(NOT_READY)


@blueprint.get("/healthz")
def healthz():
    ready, report = parts().health.report()
    worst = {answer["state"] for answer in report.values()}
    status = "down" if not ready else "degraded" if worst & {"down", "degraded"} else "up"
    if not is_admin_calling():
        report = {name: {field: answer[field] for field in PUBLIC_FIELDS} for name, answer in report.items()}
    if ready:
        return jsonify(ok=True, status=status, dependencies=report)
    return render_error(NOT_READY, status=status, dependencies=report)
