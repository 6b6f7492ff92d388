"""Finds credentials inside texts that will be logged, and masks them.

A text is searched for what this server knows (its own write keys and secrets, wherever they stand), and for what looks like a
credential: the value of a query parameter with such a name, a Bearer token, a JWT, the password in a connection string. A client may
write any character of an address as %XX, so names and keys are compared as the server reads them.

Invariant: no text that `mask` returns contains a key given to `never_show`, in plain or percent-encoded form.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

NAME = re.compile(r"token|ticket|authorization|write_?key|secret|password|cookie|payload", re.IGNORECASE)
PARAMETER = re.compile(r"((?:^|[?&;#])([^=&?#\s\"']{1,80})=)([^\s&\"']+)")
PARAMETER_OF_AN_ADDRESS = re.compile(r"((?:^|[?&;#])([^=&?#]{1,80})=)([^&]+)")
OTHERS = (
    re.compile(r"(\bBearer\s+)[^\s\"']+"),
    re.compile(r"(://[^\s/:@]*:)\S+(?=@)"),  # the password of a connection string
    re.compile(r"()\beyJ[\w-]{5,}\.[\w-]*\.?[\w-]*"),  # a JWT
)
MASK = "***"
SHORTEST = 6  # characters; a shorter key, which only development accepts, would mask ordinary words
DEEPEST = 5  # how often an address within an address is decoded


class KnownKeys:
    """The write keys and secrets of this process. `forms` are the keys as a text without percent signs may contain them."""

    def __init__(self, keys: Iterable[str] = ()):
        keys = sorted({key for key in keys if len(key) >= SHORTEST}, key=len, reverse=True)
        self._forms = {form for key in keys for form in (key, _as_latin1(key))}
        self._written = re.compile("|".join("".join(map(_any_way_to_write, key)) for key in keys)) if keys else None

    def mask(self, text: str) -> str:
        if self._written is None:
            return text
        plain = _decoded(text)
        return self._written.sub(MASK, text) if any(form in plain for form in self._forms) else text


_known = KnownKeys()


def never_show(keys: Iterable[str]) -> None:
    """From now on, in place of the keys of an earlier call."""
    global _known
    _known = KnownKeys(keys)


def mask_address(text: str) -> str:
    """Of a text that is nothing but an address or a query, where a value may contain quotes and spaces."""
    return mask(PARAMETER_OF_AN_ADDRESS.sub(_mask_parameter, mask_known(text)))


def mask(text: str) -> str:
    text = mask_known(text)
    if "=" in text:
        text = PARAMETER.sub(_mask_parameter, text)
    for pattern in OTHERS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def mask_known(text: str) -> str:
    """Only this server's own keys."""
    return _known.mask(text)


def _mask_parameter(found: re.Match[str]) -> str:
    """The value may be an address that carries a credential itself."""
    start, name, value = found.groups()
    inner = _decoded(value)
    is_secret = NAME.search(unquote_plus(name)) or (inner != value and mask(inner) != inner)
    return f"{start}{MASK}" if is_secret else found[0]


def _decoded(text: str) -> str:
    for _ in range(DEEPEST):
        if "%" not in text or (plain := unquote(text)) == text:
            break
        text = plain
    return text


def _any_way_to_write(sign: str) -> str:
    """A pattern for a character: itself, its bytes read as Latin-1 (as WSGI reads a path), or percent-encoded any number of times."""
    encoded = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in sign.encode())
    return f"(?:{'|'.join([re.escape(sign), re.escape(_as_latin1(sign)), encoded])})"


def _as_latin1(text: str) -> str:
    return text.encode().decode("latin-1")
