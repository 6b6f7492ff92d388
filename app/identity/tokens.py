"""Verifies the signature and the times of a token (a JWT) and reads its claims.

A verified token is remembered for some minutes, because the same one comes with every request and verifying a signature
costs fifty times a dictionary look-up; not longer, so that a key that is withdrawn stops counting. The memory is
bounded in bytes, since the caller chooses how long a token is; the oldest token is evicted first.
"""

import sys
from collections import OrderedDict
from typing import Any

import jwt

from app.clock import Clock, uptime
from app.errors import ApiError
from app.identity.identity import Identity, identity_from_claims, is_time
from app.identity.jwks import Jwks, KeysUnavailable, UnknownKey

REMEMBERED_BYTES = 16_777_216  # some ten thousand ordinary tokens
REMEMBERED_MS = 300_000
MAX_TOKEN_LENGTH = 8192
ENTRY_BYTES = 600  # what a remembered token needs beside its own text and the words of its claims
NO_TIMES = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False}  # nor the type of `sub`
NOT_REMEMBERED = (None, 0, 0)


class TokenVerifier:
    """Verifies signature, issuer, audience and expiry. A key is bound to its family of algorithms, so that a public
    key can never be taken for an HMAC secret (RFC 8725, section 3.1)."""

    def __init__(
        self,
        *,
        secret=None,
        public_key=None,
        jwks: Jwks | None = None,
        issuer=None,
        audience=None,
        leeway_s=0,
        max_length=MAX_TOKEN_LENGTH,
        uptime: Clock = uptime,
    ):
        self._secret = secret
        self._public_key = public_key
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._leeway_ms = leeway_s * 1000
        self._max_length = max_length
        self._uptime = uptime
        self._remembered: OrderedDict[str, tuple[Identity, int, int]] = OrderedDict()
        self._remembered_bytes = 0

    def verify(self, token: str, now: int) -> Identity:
        """Raises ApiError `unauthorized`, `token_expired`, or `unavailable` when the JWKS cannot be fetched."""
        identity, remembered_until, _ = self._remembered.get(token, NOT_REMEMBERED)
        if identity is None or self._uptime() >= remembered_until:
            identity = self._decode(token, now)
            self._remember(token, identity)
        if now >= identity.expires_at + self._leeway_ms:
            self._forget(token)
            raise ApiError("token_expired")
        return identity

    def _remember(self, token: str, identity: Identity) -> None:
        """Invariant: `_remembered_bytes` is the sum of what is remembered, and at most REMEMBERED_BYTES."""
        self._forget(token)
        size = _size_of(token, identity)
        self._remembered[token] = identity, self._uptime() + REMEMBERED_MS, size
        self._remembered_bytes += size
        while self._remembered_bytes > REMEMBERED_BYTES:
            self._forget(next(iter(self._remembered)))

    def _forget(self, token: str) -> None:
        self._remembered_bytes -= self._remembered.pop(token, NOT_REMEMBERED)[2]

    def _decode(self, token: str, now: int) -> Identity:
        if len(token) > self._max_length:
            raise ApiError("unauthorized", f"The token is longer than {self._max_length} characters (JWT_MAX_LENGTH).")
        try:
            claims = self._claims(token)
        except KeysUnavailable:
            raise ApiError("unavailable", "The keys to verify tokens with cannot be fetched right now.", retry_after_ms=5000) from None
        except (jwt.PyJWTError, UnknownKey, ValueError, TypeError, RecursionError) as error:
            raise ApiError("unauthorized", f"The token is not valid: {_reason(error)}.") from None
        not_before = claims.get("nbf", 0)
        if not is_time(not_before) or not_before * 1000 > now + self._leeway_ms:
            raise ApiError("unauthorized", "The token is not valid yet.")
        return identity_from_claims(claims)

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        key, algorithm = self._key_for(header)
        try:
            return self._decode_with(key, algorithm, token)
        except jwt.InvalidSignatureError:
            other = self._other_key(header, key)
            if other is None:
                raise
            return self._decode_with(other, algorithm, token)

    def _decode_with(self, key: Any, algorithm: str, token: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            # The times are compared by the caller, with its `now`; `iat` is no reason to refuse (RFC 7519, section 4.1.6).
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None, **NO_TIMES},
        )

    def _other_key(self, header: dict[str, Any], key: Any) -> Any:
        if self._jwks is None or self._public_key or header["alg"] == "HS256":
            return None
        return self._jwks.find_other(header.get("kid"), header["alg"], key, self._uptime())

    def _key_for(self, header: dict[str, Any]) -> tuple[Any, str]:
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret:
            return self._secret, algorithm
        if algorithm in ("RS256", "ES256"):
            if self._public_key:
                return self._public_key, algorithm
            if self._jwks:
                return self._jwks.find(header.get("kid"), algorithm, self._uptime()), algorithm
        raise jwt.InvalidAlgorithmError("its algorithm is not accepted here")


def _size_of(token: str, identity: Identity) -> int:
    """Bytes of memory. Words are counted one by one: the shortest needs fifty."""
    words = (*identity.roles, *identity.subscribe_to, *identity.publish_to)
    return ENTRY_BYTES + sys.getsizeof(token) + sum(sys.getsizeof(word) + 8 for word in words)


def _reason(error: Exception) -> str:
    """PyJWT's own words where they are about what the token says; what cannot be taken apart only is malformed."""
    if isinstance(error, UnknownKey):
        return "it is signed with a key that is not known here"
    is_about_its_parts = type(error) is jwt.DecodeError or not isinstance(error, jwt.PyJWTError)
    return "it is malformed" if is_about_its_parts else str(error).rstrip(".")


def make_token(secret: str, claims: dict[str, Any]) -> str:
    """An HS256 token, for `flask token` and for tests."""
    return jwt.encode(claims, secret, algorithm="HS256")
