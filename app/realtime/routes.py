"""HTTP routes of realtime, for backends that hold no connection."""

from flask import Blueprint as FlaskBlueprint

from app.http.context import known_caller, parts, service_only, users_only
from app.http.openapi import TOKEN, Blueprint
from app.http.rate_limits import count_extra_requests
from app.realtime.asyncapi import document
from app.realtime.schemas import EmitSchema, OkSchema, PublishedSchema, PublishSchema

blueprint = Blueprint("realtime", __name__, url_prefix="/api/realtime", description="Live topics and rooms")


@blueprint.post("/publish")
@users_only
@blueprint.arguments(PublishSchema)
@blueprint.response(200, PublishedSchema)
@blueprint.doc(security=TOKEN)
def publish(body):
    """Append a message to a topic, or several `messages` to theirs: all or none.

    A repeated id of the same caller gets the first answer again. Each message counts as one request against the caller's rate.
    """
    messages = body.get("messages") or [body]
    count_extra_requests(len(messages) - 1)
    published = parts().realtime.publish_as(known_caller(), messages)
    return {"ok": True, "messages": published} if "messages" in body else {"ok": True, **published[0]}


@blueprint.post("/emit")
@service_only
@blueprint.arguments(EmitSchema)
@blueprint.response(200, OkSchema)
@blueprint.doc(security=TOKEN)
def emit(body):
    """Send a business event to all connections of a room, in /realtime and in /. It is not acknowledged and not logged."""
    parts().realtime.emit(body["event"], body["payload"], body["to"])
    return {"ok": True}


contract = FlaskBlueprint("asyncapi", __name__)


@contract.get("/asyncapi.json")
def asyncapi():
    """Return the AsyncAPI document of /realtime."""
    return document()
