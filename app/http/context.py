"""What a view may ask of the running request: the application's parts, and who is calling.

The caller is found out once per request and only when somebody asks; a credential that is wrong is 401 even where
none would have been needed, so that a front-end team sees its mistake instead of an anonymous answer.
"""

from functools import wraps
from typing import TYPE_CHECKING

import structlog
from flask import current_app, g, request

from app.errors import ApiError
from app.identity.identity import Identity

if TYPE_CHECKING:
    from app.wiring.parts import Parts


def parts() -> "Parts":
    return current_app.extensions["switchyard"]


def caller() -> Identity | None:
    """The Identity of this request, None for nobody. Raises ApiError for a credential that does not hold."""
    if "identity" not in g:
        headers = request.headers
        write_key = headers.get("X-Write-Key") or request.args.get("writeKey")
        g.identity = parts().gatekeeper.from_headers(headers.get("Authorization"), write_key)
        if g.identity is not None and g.identity.user_id is not None:
            structlog.contextvars.bind_contextvars(user=g.identity.user_id)
    return g.identity


def known_caller() -> Identity:
    identity = caller()
    if identity is None:
        raise ApiError("unauthorized")
    return identity


def is_admin_calling() -> bool:
    """For answers that show an admin more; a wrong credential counts as nobody here, since the answer is open."""
    try:
        identity = caller()
    except ApiError:
        return False
    return identity is not None and identity.is_admin


def _guard(is_allowed, refusal: str):
    def decorate(view):
        @wraps(view)
        def guarded(*args, **kwargs):
            if not is_allowed(known_caller()):
                raise ApiError("forbidden", refusal)
            return view(*args, **kwargs)

        return guarded

    return decorate


any_caller = _guard(lambda identity: True, "")
users_only = _guard(lambda identity: not identity.is_write_key, "A write key may not do this; use a token.")
admin_only = _guard(lambda identity: identity.is_admin, "Only the role admin may do this.")
service_only = _guard(lambda identity: identity.is_service, "Only the roles service and admin may do this.")
