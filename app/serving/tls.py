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
    """`take` loads the certificate, `for_worker` returns the context for a worker, `check` reports to /healthz."""

    def __init__(self):
        self._context: ssl.SSLContext | None = None
        self.refusal = ""

    def take(self, options) -> None:
        """Load the certificate that gunicorn's Config names. Raises SettingsError at the first call only."""
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
        """Return the context as gevent's class. The master is not patched by gevent, so its own class would block the whole worker."""
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
    certfile, keyfile=None, ca_certs=None, cert_reqs=ssl.CERT_NONE, ciphers=None, *, names=("--certfile", "--keyfile")
) -> ssl.SSLContext:
    """Return a context. Without `keyfile` the certificate's file contains the key. Raises SettingsError with the `names` of the options."""
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
    """Raise SettingsError with the name of the option whose file is missing, unreadable or empty."""
    for option, path in files.items():
        try:
            if path and not Path(path).read_bytes().strip():
                raise SettingsError(f"switchyard: {option} {path} is empty")
        except OSError as error:
            raise SettingsError(f"switchyard: {option} {path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Fail, because OpenSSL would ask for the password at a terminal."""
    raise ValueError("the key is protected by a password; a server needs one without")
