"""The browser client, as pages load it. It is the same for all callers, so no credential is asked for."""

from pathlib import Path

from flask import Blueprint, request, send_file

blueprint = Blueprint("sdk", __name__)
FILES = Path(__file__).parent


@blueprint.get("/sdk/realtime.js")
def realtime_sdk():
    """Revalidated at every load, which costs a 304: an SDK that is an hour old talks to a server that is not."""
    response = send_file(FILES / "realtime.js", mimetype="text/javascript", conditional=True, etag=True, max_age=0)
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(request)
