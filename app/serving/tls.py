"""The certificate that a server uses, and the key that belongs to it.

gunicorn's master loads both at its start and at each SIGHUP; its workers are forks of it and find the context in memory, so a
worker needs neither file and no right to read the key.

The invariants:
1. No start of a worker reads a certificate or a key.
2. After the start, the certificate changes only at a SIGHUP and only to one that can be used with its key. Otherwise the one
   before stays in use, and the log and /healthz report it.
"""

import logging
import ssl
from pathlib import Path
from typing import Any

from app.settings import SettingsError

log = logging.getLogger(__name__)  # the master has no structlog


class CertificateInUse:
    """`take` loads it, at the start and again; `for_worker` is what a worker serves with; `check` answers for /healthz."""

    def __init__(self):
        self._context: ssl.SSLContext | None = None
        self.refusal = ""

    def take(self, options) -> None:
        """From gunicorn's Config. Raises SettingsError at the first time only."""
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
            log.error("certificate_refused", extra={"error": self.refusal, "consequence": "the certificate before it stays in use"})

    def for_worker(self) -> ssl.SSLContext | None:
        """The master is not patched by gevent, so its context would wait for a client with the whole worker."""
        from gevent.ssl import SSLContext

        if self._context is not None:
            self._context.__class__ = SSLContext
        return self._context

    @property
    def is_used(self) -> bool:
        return self._context is not None

    def check(self) -> dict[str, Any]:
        """For health: `degraded` where the last SIGHUP brought a certificate that cannot be used."""
        return {"state": "degraded", "error": self.refusal} if self.refusal else {"state": "up"}


CERTIFICATE = CertificateInUse()  # at module level: the memory of a fork is the only way from gunicorn's master into a worker


def load(
    certfile, keyfile=None, ca_certs=None, cert_reqs=ssl.CERT_NONE, ciphers=None, *, names=("--certfile", "--keyfile")
) -> ssl.SSLContext:
    """Raises SettingsError with the `names` of the two options. Without `keyfile` the key stands in the certificate's file."""
    option, key_option = names
    if not certfile:
        raise SettingsError(f"switchyard: {key_option} needs {option}, the certificate that belongs to the key")
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
    """Raises SettingsError with the name of the option whose file is missing, unreadable or empty."""
    for option, path in files.items():
        try:
            if path and not Path(path).read_bytes().strip():
                raise SettingsError(f"switchyard: {option} {path} is empty")
        except OSError as error:
            raise SettingsError(f"switchyard: {option} {path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """The library would ask at the terminal, where a server that starts has none."""
    raise ValueError("the key is protected by a password; a server needs one without")
