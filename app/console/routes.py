"""Files that pages load. They are the same for everybody, so nobody is asked who they are."""

from pathlib import Path

from flask import Blueprint, request, send_file

blueprint = Blueprint("console", __name__)
STATIC = Path(__file__).parent / "static"


@blueprint.get("/sdk/realtime.js")
def realtime_sdk():
    """Revalidated at every load, which costs a 304: an SDK that is an hour old talks to a server that is not."""
    response = send_file(STATIC / "realtime-client.js", mimetype="text/javascript", conditional=True, etag=True, max_age=0)
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(request)
