"""Who is calling: a JWT or a write key becomes an Identity, and nothing else in the house looks at a token.

A verified token is remembered until it expires, because the same one comes with every request and a signature costs
fifty times a dictionary look-up. What is remembered is bounded; the oldest is forgotten first.
"""

import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jwt

from app.errors import ApiError

REMEMBERED_TOKENS = 10_000
MAX_TOKEN_LENGTH = 8192
MAX_ID_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """`kind` is `user` (a token) or `write_key`. `expires_at` is in epoch milliseconds, None for a write key.

    `subscribe_to` and `publish_to` are patterns: a topic, or a prefix ending in `*`.
    """

    kind: str
    user_id: str | None = None
    roles: tuple[str, ...] = ()
    subscribe_to: tuple[str, ...] = ()
    publish_to: tuple[str, ...] = ()
    expires_at: int | None = None
    write_key_name: str | None = None

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def is_service(self) -> bool:
        return "service" in self.roles or self.is_admin

    @property
    def is_write_key(self) -> bool:
        return self.kind == "write_key"


class TokenVerifier:
    """Verifies signature, issuer, audience and expiry. A key is bound to its family of algorithms, so that a public
    key can never be taken for an HMAC secret (RFC 8725, section 3.1)."""

    def __init__(self, *, secret=None, public_key=None, jwks_url=None, issuer=None, audience=None, leeway_s=0):
        self._secret = secret
        self._public_key = public_key
        self._jwks = jwt.PyJWKClient(jwks_url, cache_keys=True, lifespan=300, timeout=3) if jwks_url else None
        self._issuer = issuer
        self._audience = audience
        self._leeway_ms = leeway_s * 1000
        self._remembered: OrderedDict[str, Identity] = OrderedDict()

    def verify(self, token: str, now: int) -> Identity:
        """Raises ApiError `unauthorized`, `token_expired`, or `unavailable` when the JWKS cannot be fetched."""
        identity = self._remembered.get(token)
        if identity is None:
            identity = self._remember(token, self._decode(token))
        if now >= identity.expires_at + self._leeway_ms:
            self._remembered.pop(token, None)
            raise ApiError("token_expired")
        return identity

    def _remember(self, token: str, identity: Identity) -> Identity:
        self._remembered[token] = identity
        if len(self._remembered) > REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)
        return identity

    def _decode(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ApiError("unauthorized", "The token is too long.")
        try:
            key, algorithms = self._key_for(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                issuer=self._issuer,
                audience=self._audience,
                options={"verify_exp": False, "require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.PyJWKClientConnectionError:
            raise ApiError("unavailable", "The keys to verify tokens with cannot be fetched right now.", retry_after_ms=5000) from None
        except (jwt.PyJWTError, ValueError, TypeError, UnicodeError) as error:
            raise ApiError("unauthorized", f"The token is not valid: {_reason(error)}.") from None
        return identity_from_claims(claims)

    def _key_for(self, token: str) -> tuple[Any, list[str]]:
        algorithm = jwt.get_unverified_header(token).get("alg")
        if algorithm == "HS256" and self._secret:
            return self._secret, ["HS256"]
        if algorithm in ("RS256", "ES256"):
            if self._public_key:
                return self._public_key, [algorithm]
            if self._jwks:
                return self._jwks.get_signing_key_from_jwt(token).key, [algorithm]
        raise jwt.InvalidAlgorithmError("its algorithm is not accepted here")


def _reason(error: Exception) -> str:
    """PyJWT's own words where they are about the token; anything else only says that it is malformed."""
    return str(error).rstrip(".") if isinstance(error, jwt.PyJWTError) else "it is malformed"


def identity_from_claims(claims: dict[str, Any]) -> Identity:
    """`{sub, exp, role?: str | [str], topics?: {sub?: [pattern], pub?: [pattern]}}` -> Identity, or `unauthorized`."""
    subject, expires, role, topics = claims.get("sub"), claims.get("exp"), claims.get("role"), claims.get("topics") or {}
    roles = [role] if isinstance(role, str) else role or []
    ok = (
        isinstance(subject, str)
        and 0 < len(subject) <= MAX_ID_LENGTH
        and isinstance(expires, (int, float))
        and 0 <= expires < 1e11
        and _is_strings(roles)
        and isinstance(topics, dict)
        and _is_strings(topics.get("sub") or [])
        and _is_strings(topics.get("pub") or [])
    )
    if not ok:
        raise ApiError("unauthorized", "The token's claims have the wrong shape.")
    return Identity(
        kind="user",
        user_id=subject,
        roles=tuple(roles),
        subscribe_to=tuple(topics.get("sub") or ()),
        publish_to=tuple(topics.get("pub") or ()),
        expires_at=int(expires * 1000),
    )


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and 0 < len(item) <= MAX_ID_LENGTH for item in value)


class Gatekeeper:
    """Credentials in, Identity out. Knows where a credential may stand, not who asks."""

    def __init__(self, verifier: TokenVerifier, write_keys: dict[str, str], clock):
        self._verifier = verifier
        self._write_keys = {key: Identity(kind="write_key", write_key_name=name) for key, name in write_keys.items()}
        self._clock = clock

    def from_token(self, token: Any) -> Identity:
        if not isinstance(token, str) or not token:
            raise ApiError("unauthorized")
        return self._verifier.verify(token, self._clock())

    def from_write_key(self, key: str) -> Identity:
        identity = self._write_keys.get(key)
        if identity is None:
            raise ApiError("unauthorized", "This write key is not known.")
        return identity

    def from_headers(self, authorization: str | None, write_key: str | None) -> Identity | None:
        """None where nothing was presented. A credential that is wrong is an error, never 'nobody'."""
        if authorization:
            scheme, _, credential = authorization.partition(" ")
            credential = credential.strip()
            if scheme.lower() != "bearer" or not credential:
                raise ApiError("unauthorized", "Authorization must be: Bearer <token>.")
            return self._write_keys.get(credential) or self.from_token(credential)
        return self.from_write_key(write_key) if write_key else None


def make_token(secret: str, claims: dict[str, Any]) -> str:
    """An HS256 token, for `flask token` and for tests."""
    return jwt.encode(claims, secret, algorithm="HS256")


def same_secret(given: str | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), expected.encode())
