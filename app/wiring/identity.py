"""Builds the check of credentials: bearer tokens, their public keys, and write keys."""

from app import development
from app.identity.gatekeeper import Gatekeeper
from app.identity.jwks import Jwks
from app.identity.tokens import TokenVerifier
from app.logs.masking import never_show
from app.wiring.common import Common


def build(common: Common, secrets: development.Secrets | None) -> Gatekeeper:
    """Build the gatekeeper; `secrets` are the ones made for development, used where the settings name none."""
    settings = common.settings
    secret = settings.jwt_secret or (secrets.jwt_secret if secrets else None)
    verifier = TokenVerifier(
        secret=secret,
        public_key=settings.jwt_public_key,
        jwks=_jwks(common),
        uptime=common.uptime,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_s=settings.jwt_leeway_s,
        max_length=settings.jwt_max_length,
    )
    write_keys = settings.write_keys or (secrets.write_keys if secrets else {})
    never_show(key for key in (*write_keys, secret, settings.metrics_token) if key)
    return Gatekeeper(verifier, write_keys, common.clock)


def _jwks(common: Common) -> Jwks | None:
    if not common.settings.jwt_jwks_url:
        return None
    jwks = Jwks(common.settings.jwt_jwks_url)
    common.checks["jwks"] = lambda: jwks.check(common.uptime())
    return jwks
