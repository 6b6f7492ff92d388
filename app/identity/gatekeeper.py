"""Turns the credential of a request into an Identity; no other part reads a token or a write key."""

import hmac
from collections.abc import Mapping
from typing import Any

from app.clock import Clock
from app.errors import ApiError
from app.identity.identity import Identity
from app.identity.tokens import TokenVerifier
from app.identity.write_keys import WriteKey


class Gatekeeper:
    """Credentials in, Identity out. Knows where a credential may stand, not who asks."""

    def __init__(self, verifier: TokenVerifier, write_keys: Mapping[str, WriteKey], clock: Clock):
        self._verifier = verifier
        self._write_keys = {text: Identity(kind="write_key", write_key_name=key.name, apps=key.apps) for text, key in write_keys.items()}
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
        """None where nothing was presented. A credential that is wrong is an error, never 'nobody'.

        Another scheme than Bearer beside a write key is passed over: it is for the proxy that asks a test site's visitors for
        a password, and the browser sends it along to us.
        """
        scheme, _, credential = (authorization or "").strip().partition(" ")
        credential = credential.strip()
        if scheme.lower() == "bearer" and credential:
            return self._write_keys.get(credential) or self.from_token(credential)
        if write_key:
            return self.from_write_key(write_key)
        if scheme:
            raise ApiError("unauthorized", "Authorization must be: Bearer <token>.")
        return None


def same_secret(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
