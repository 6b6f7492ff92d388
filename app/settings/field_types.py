"""Types of settings that pydantic does not have: comma-separated lists, rates, origins, addresses, keys.

Each check raises ValueError with the end of a sentence, which `loading` puts behind the name of the setting.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import urlsplit

from limits import RateLimitItem, parse_many
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from app.identity.origins import is_pattern
from app.identity.write_keys import WriteKey, read_write_keys

QUOTES = ("'", '"')


def without_quotes(text: str) -> str:
    """Remove a pair of quotes around the text. A shell removes them, `docker --env-file` and Kubernetes do not."""
    is_pair = len(text) >= 2 and text[0] == text[-1] in QUOTES and text[0] not in text[1:-1]
    return text[1:-1] if is_pair else text


def without_paired_quotes(text: str) -> str:
    """Remove a pair of quotes around the text. Raises ValueError for a quote without its partner."""
    text = without_quotes(text)
    if text.startswith(QUOTES) or text.endswith(QUOTES):
        raise ValueError("is wrong: a quote at one end has no partner; write the value without quotes")
    return text


def parse_rate(text: str) -> RateLimitItem:
    """`50/second` -> what the `limits` library makes of it. Raises ValueError for several rates, too."""
    (rate,) = parse_many(text)
    return rate


def _split(value: Any) -> Any:
    """`a, b` -> ("a", "b"). A value that is no text is a default or comes from a test, and is left as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in (without_paired_quotes(part.strip()) for part in value.split(",")) if part)


def _rate(value: str) -> str:
    try:
        rate = parse_rate(value)
    except ValueError:
        raise ValueError("is not a rate; write one like 50/second or 600/minute") from None
    if rate.amount < 1 or rate.get_expiry() < 1:
        raise ValueError("is a rate of zero; write one like 50/second or 600/minute")
    return value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not is_pattern(value):
            raise ValueError(f"must be a list of origins like https://app.example.com or https://*.example.com, or *; {value!r} is none")
    return values


def _header_names(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'+.^_`|~-]+\*?|\*", value):
            raise ValueError(f"must be a list of header names like X-Tenant or X-Corp-*; {value!r} is none")
    return values


def _write_keys(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = _split(value)
    if any(quote in pair for pair in pairs for quote in QUOTES):
        raise ValueError("is wrong: a quote inside a value; write the value without quotes")
    return read_write_keys(pairs)


def _retention(value: Any) -> Any:
    """`chat:*=5000/16777216/604800` -> (("chat:*", 5000, 16777216, 604800),): messages, bytes and seconds of a topic or a prefix."""
    if not isinstance(value, str):
        return value
    rows = []
    for part in _split(value):
        found = re.fullmatch(r"([A-Za-z0-9:._/-]*\*?)=([1-9]\d{0,9})/([1-9]\d{0,11})/(\d{1,9})", part)
        if not found or not found[1]:
            raise ValueError("must be a list like chat:*=5000/16777216/604800: a topic or prefix*, then messages, bytes and seconds")
        rows.append((found[1], int(found[2]), int(found[3]), int(found[4])))
    return tuple(rows)


def _public_key(value: str) -> str:
    """Accept a PEM text, whose line breaks may be written as backslash n, as .env files need, or the path of a PEM file."""
    text = value.replace("\\n", "\n")
    if "-----BEGIN" not in text:
        try:
            text = Path(value).read_text()
        except (OSError, ValueError):
            raise ValueError("is neither a PEM text nor the path of a readable PEM file") from None
    _refuse_unusable_key(text)
    return text


def _refuse_unusable_key(pem: str) -> None:
    """Without this check, every token would be rejected with a message about the token and none about the key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except Exception:  # the library raises many types
        raise ValueError("is not a PEM that begins with BEGIN PUBLIC KEY and can be read") from None
    is_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not (is_rsa or is_p256):
        raise ValueError("is neither an RSA key of at least 2048 bits (RS256) nor one on the curve P-256 (ES256)")


def _url_with(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            if not parts.scheme.startswith("mongodb"):  # such an address may name several hosts, and the driver checks them
                parts.port  # noqa: B018 - raises ValueError if it is not a number
            if "redis" in schemes and "@" in parts.path + parts.fragment:
                raise ValueError("an unescaped sign ended the password early")
        except ValueError:  # the library's sentence would show a part of the password
            raise ValueError("cannot be read; in a user's name and password, signs like @ : / are written %40 %3A %2F") from None
        if parts.scheme not in schemes or not (value.startswith("unix://") and parts.path if parts.scheme == "unix" else parts.netloc):
            raise ValueError(f"is not an address that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return value

    return AfterValidator(check)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
HeaderNames = Annotated[CommaList, AfterValidator(_header_names)]
Origins = Annotated[CommaList, AfterValidator(_origins)]
Rate = Annotated[str, AfterValidator(_rate)]
WriteKeys = Annotated[Mapping[str, WriteKey], NoDecode, BeforeValidator(_write_keys), AfterValidator(MappingProxyType)]
Retention = Annotated[tuple[tuple[str, int, int, int], ...], NoDecode, BeforeValidator(_retention)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
MongoUri = Annotated[str, _url_with("mongodb", "mongodb+srv")]
RedisUrl = Annotated[str, _url_with("redis", "rediss", "unix")]
HttpUrl = Annotated[str, _url_with("https", "http")]
InAnyCase = BeforeValidator(_lower)
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1024)]
Milliseconds = Annotated[int, Field(ge=1)]
