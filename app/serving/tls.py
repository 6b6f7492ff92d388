"""The server's TLS certificate and its key.

gunicorn's master loads both at its start and at each SIGHUP. Its workers are forks and inherit the context in memory, so a worker needs
neither file and no permission to read the key.

Invariants:
1. The start of a worker reads neither certificate nor key.
2. After the start, the certificate changes only at a SIGHUP, and only to one that fits its key. Otherwise the previous certificate stays
   in use, and the log and /healthz report it.
"""

import logging
import ssl
from pathlib import Path
from typing import Any

from app.settings import SettingsError

log = logging.getLogger(__name__)  # the master has no structlog


class CertificateInUse:
    """The TLS context of this server: `take` loads it, `for_worker` returns it to a worker, and `check` reports to /healthz."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self.refusal = ""

    def take(self, options: Any) -> None:
        """Load the certificate that gunicorn's Config names. The first call raises SettingsError, a later one keeps the old certificate."""
        if not options.is_ssl:
            self._context, self.refusal = None, ""
            return
        try:
            self._context = load(options.certfile, options.keyfile, options.ca_certs, options.cert_reqs, options.ciphers)
            self.refusal = ""
        except SettingsError as error:
            if self._context is None:
                raise
            self.refusal = str(error)
            log.error("certificate_refused", extra={"error": self.refusal, "consequence": "the previous certificate stays in use"})

    def for_worker(self) -> ssl.SSLContext | None:
        """Return the context as an object of gevent's class. The master's own class is not patched, and would block the whole worker."""
        from gevent.ssl import SSLContext

        if self._context is not None:
            self._context.__class__ = SSLContext
        return self._context

    @property
    def is_used(self) -> bool:
        """Whether this server uses TLS."""
        return self._context is not None

    def check(self) -> dict[str, Any]:
        """Return the state for /healthz: `degraded` where the certificate of the last SIGHUP cannot be used."""
        return {"state": "degraded", "error": self.refusal} if self.refusal else {"state": "up"}


CERTIFICATE = CertificateInUse()  # at module level: a worker can only inherit it from gunicorn's master by the fork


def load(
    certfile: str,
    keyfile: str | None = None,
    ca_certs: str | None = None,
    cert_reqs: ssl.VerifyMode = ssl.CERT_NONE,
    ciphers: str | None = None,
    *,
    names: tuple[str, str] = ("--certfile", "--keyfile"),
) -> ssl.SSLContext:
    """Load a certificate and return its context. Without `keyfile`, `certfile` contains the key too.

    Raises SettingsError with the `names` of the two options."""
    option, key_option = names
    if not certfile:
        raise SettingsError(f"switchyard: {key_option} needs {option}, the certificate for the key")
    refuse_unreadable({option: certfile, key_option: keyfile, "--ca-certs": ca_certs})
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca_certs)
        context.load_cert_chain(certfile, keyfile, password=_no_password)
        context.verify_mode = cert_reqs
        if ciphers:
            context.set_ciphers(ciphers)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            key = f"{key_option} {keyfile}" if keyfile else "the key in it"
            raise SettingsError(f"switchyard: {option} {certfile} and {key} do not belong together") from None
        raise SettingsError(f"switchyard: {option} {certfile} and its key cannot be used: {error}") from None
    return context


def refuse_unreadable(files: dict[str, str | None]) -> None:
    """Raise SettingsError where the file of an option is missing, unreadable or empty."""
    for option, path in files.items():
        try:
            if path and not Path(path).read_bytes().strip():
                raise SettingsError(f"switchyard: {option} {path} is empty")
        except OSError as error:
            raise SettingsError(f"switchyard: {option} {path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Raise ValueError. Without this callback, OpenSSL would ask for the password at a terminal."""
    raise ValueError("the key is protected by a password; use a key without one")
