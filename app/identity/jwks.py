"""The public keys of whoever signs the tokens, fetched from JWT_JWKS_URL and kept.

Three things must not happen: an outage there turns nobody away who was let in before (keys once known go on verifying,
and only a key that nobody has seen yet is `unavailable`, never `unauthorized`); a withdrawn key does not verify for
ever (the whole set is replaced at every fetch); and a stranger's invented `kid`, or a signature that does not fit, does not
cause a fetch per request (there is one fetch in REST_MS at most, whatever comes in).

Every `now` here is in milliseconds of a clock that nobody sets (app/clock.py, `uptime`).
"""

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.logs import get_logger

log = get_logger(__name__)

FRESH_MS = 300_000
REST_MS = 10_000
TIMEOUT_S = 3
MAX_SET_BYTES = 1_000_000
USER_AGENT = "Switchyard"  # hosts with a firewall refuse the name that Python's library gives itself

Keys = dict[tuple[str | None, str], Any]  # (kid, algorithm) -> key


class KeysUnavailable(Exception):
    """The key may exist, but nobody can be asked right now."""


class UnknownKey(Exception):
    """The set is fresh, and the key is not in it."""


class Jwks:
    """`fetch` returns the document's bytes and raises OSError; it is a parameter so that time and network can be tested apart."""

    def __init__(self, url: str, fetch: Callable[[str], bytes] | None = None):
        self._url = url
        self._fetch = fetch or fetch_document
        self._keys: Keys = {}
        self._fetched_at: int | None = None
        self._tried_at: int | None = None
        self._last_try_failed = False
        self._last_error = ""
        self._lock = threading.Lock()

    def find(self, kid: str | None, algorithm: str, now: int) -> Any:
        """Raises KeysUnavailable, UnknownKey."""
        key = self._keys.get((kid, algorithm))
        if self._is_due(key, now):
            self._refresh(key, now)
            key = self._keys.get((kid, algorithm))
        if key is None:
            raise KeysUnavailable if self._last_try_failed else UnknownKey
        return key

    def find_other(self, kid: str | None, algorithm: str, key: Any, now: int) -> Any:
        """The key that has taken the place of `key` under its name, which an issuer may do; None where there is no other. Asked
        for after a signature that did not fit, so it is worth a fetch, where the last one is REST_MS ago."""
        if self._is_rested(now):
            with self._lock:
                if self._is_rested(now):
                    self._replace_keys(now)
        other = self._keys.get((kid, algorithm))
        return None if other is None or other.public_numbers() == key.public_numbers() else other

    def check(self, now: int) -> dict[str, Any]:
        """For health. It looks itself where nobody has looked for long, so that a host that refuses us shows before a token does."""
        if self._is_due(self._keys or None, now):
            self._refresh(self._keys or None, now)
        state = "up" if not self._last_try_failed else "degraded" if self._keys else "down"
        report = {"state": state, "keys": len({id(key) for key in self._keys.values()})}
        return {**report, "error": self._last_error} if self._last_try_failed else report

    def _is_rested(self, now: int) -> bool:
        return self._tried_at is None or now - self._tried_at >= REST_MS

    def _is_due(self, key: Any, now: int) -> bool:
        return self._is_rested(now) and (key is None or self._fetched_at is None or now - self._fetched_at >= FRESH_MS)

    def _refresh(self, key: Any, now: int) -> None:
        """One caller fetches; who has a key from before goes on with it meanwhile, who has none waits."""
        if not self._lock.acquire(blocking=key is None):
            return
        try:
            if self._is_due(key, now):
                self._replace_keys(now)
        finally:
            self._lock.release()

    def _replace_keys(self, now: int) -> None:
        try:
            self._keys = read_keys(self._fetch(self._url))
        except (OSError, ValueError, RecursionError) as error:
            self._last_try_failed, self._last_error = True, f"{type(error).__name__}: {error}"[:300]
            log.warning("jwks_unavailable", error=self._last_error, known_keys=len(self._keys))
        else:
            self._last_try_failed, self._fetched_at = False, now
        finally:
            self._tried_at = now  # only now: who comes during a fetch waits for it instead of going without


def read_keys(document: bytes) -> Keys:
    """The keys that verify RS256 or ES256. Under `None` stands the one for tokens without a `kid`, where there is only one.

    Raises ValueError for what is no JWKS or has no such key.
    """
    parsed = json.loads(document)
    rows = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(rows, list):
        raise ValueError("it is not a JWKS document")
    usable = [found for row in rows if (found := _read_key(row))]
    if not usable:
        raise ValueError("it has no key for RS256 or ES256")
    keys = {(kid, algorithm): key for kid, algorithm, key in reversed(usable) if kid is not None}
    for wanted in ("RS256", "ES256"):
        of_this_kind = [key for _, algorithm, key in usable if algorithm == wanted]
        if len(of_this_kind) == 1:
            keys[None, wanted] = of_this_kind[0]
    return keys


def _read_key(row: Any) -> tuple[str | None, str, Any] | None:
    """One that is not for us (encryption, another algorithm, a weak or broken key) is passed over: the others still count."""
    if not isinstance(row, dict) or row.get("use") not in (None, "sig") or row.get("kty") not in ("RSA", "EC"):
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in row.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        algorithm = "RS256"
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = "ES256"
    else:
        return None
    kid = row.get("kid")
    return (kid, algorithm, key) if row.get("alg") in (None, algorithm) and (kid is None or isinstance(kid, str)) else None


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def fetch_document(url: str) -> bytes:
    """Raises OSError, for an answer other than 200, too. Redirects are refused: the address in the settings is the one that is trusted."""
    request = Request(url, headers={"Accept": "application/json", "User-Agent": USER_AGENT})
    with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S) as response:
        document = response.read(MAX_SET_BYTES + 1)
    if len(document) > MAX_SET_BYTES:
        raise OSError(f"it has more than {MAX_SET_BYTES} bytes")
    return document
