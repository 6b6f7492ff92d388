"""The settings that a running server uses: the newest ones that were good.

gunicorn's master reads them at its start and at each SIGHUP. Its workers are forks of it, so they find them in memory and
never read the environment or `.env` again. A server under `flask run` reads them once.

The invariants:
1. Every worker uses the settings of its master, however often it is replaced. No start of a worker reads `.env`, which may have
   become unreadable since.
2. After the start the settings change only to values that a start would have taken: the reading, the listening address and
   building the application are tried first.
3. Nothing that is wrong in the settings ends a server that has served once. The log and /healthz report it.
"""

import logging
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.settings.loading import load_settings, misspelt_names, read_app_env
from app.settings.settings import Settings, SettingsError

log = logging.getLogger(__name__)  # the master has no structlog
TRIAL_S = 30
LONGEST_SENTENCE = 500
WITHOUT_CONFIGURATION = (
    "switchyard: gunicorn was started without Switchyard's configuration, so nothing would run in the background: "
    f"add --config {Path(__file__).parents[2] / 'gunicorn.conf.py'}"
)


class SettingsInUse:
    """`take` reads them, at the start and again; `check` answers for /healthz."""

    def __init__(self):
        self._env_file: Path | None = None  # made absolute by the first `take`
        self._read: Callable[[], Settings] = load_settings
        self._file_seen: tuple | None = None
        self._verdict = ""
        self._served = mmap.mmap(-1, 1)  # shared by the master and all its workers
        self.settings: Settings | None = None
        self.misspelt: dict[str, str] = {}
        self.refusal = ""

    def take(self, default_env: str = "development", *, try_first: Callable[[Settings], None] | None = None, **known: Any) -> Settings:
        """Raises SettingsError at the first time only. `try_first` raises it for settings that cannot be changed to; `known` are
        settings that are no matter of the environment here."""
        self._env_file = self._env_file or Path(".env").absolute()  # gunicorn's --chdir takes effect after the first reading
        self._read = lambda: load_settings(self._env_file, app_env=read_app_env(default_env, self._env_file), **known)
        seen = self._stamp()
        try:
            fresh, misspelt = self._read(), misspelt_names(self._env_file)
            if self.settings is not None and try_first:
                try_first(fresh)
        except (SettingsError, Exception) as error:
            if self.settings is None:
                raise
            self.refuse(str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}")
        else:
            self.settings, self.misspelt, self.refusal = fresh, misspelt, ""
        self._file_seen, self._verdict = seen, ""
        return self.settings

    def refuse(self, sentence: str) -> None:
        self.refusal = sentence[:LONGEST_SENTENCE]
        log.error("settings_refused", extra={"error": self.refusal, "consequence": "the settings before them stay in use"})

    @property
    def has_served(self) -> bool:
        """True in the master and in every worker as soon as one worker has accepted connections."""
        return self._served[0] == 1

    def note_serving(self) -> None:
        self._served[0] = 1

    def check(self) -> dict[str, Any]:
        """For health: `degraded` while the next start would refuse, or the last SIGHUP refused, what is set."""
        self.look()
        wrong = self.refusal or self._verdict
        return {"state": "degraded", "error": wrong} if wrong else {"state": "up"}

    def look(self) -> None:
        """Judge `.env` again where it has changed; only reports, and never changes the settings."""
        if self.settings is None or (stamp := self._stamp()) == self._file_seen:
            return
        self._file_seen, self._verdict = stamp, ""
        try:
            self._read()
        except SettingsError as error:
            self._verdict = str(error)[:LONGEST_SENTENCE]
            log.error("settings_refused", extra={"error": self._verdict, "consequence": "a restart would fail; the old ones stay in use"})

    def _stamp(self) -> tuple | None:
        try:
            found = (self._env_file or Path(".env")).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


IN_USE = SettingsInUse()  # at module level: the memory of a fork is the only way from gunicorn's master into wsgi.py


def in_use() -> Settings:
    """Raises SettingsError; under gunicorn, where its master has read none, the error that ends the master."""
    if IN_USE.settings is None and _is_in_gunicorn():
        from gunicorn.errors import AppImportError

        raise AppImportError(WITHOUT_CONFIGURATION)
    return IN_USE.settings or IN_USE.take(web_concurrency=1)  # `flask run` and the commands are one process


def warn_of_misspelt_names(log) -> None:
    """Of those that stood beside the settings in use."""
    for name, meant in IN_USE.misspelt.items():
        log.warning("setting_misspelt", name=name, meant=meant, consequence=f"{name} is not read")


def _is_in_gunicorn() -> bool:
    """The variable alone would be inherited by any command that a worker starts."""
    return "gunicorn.arbiter" in sys.modules and os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")


def refuse_what_cannot_run(before: Settings, fresh: Settings, *, listens: bool) -> None:
    """What a start would have found wrong beyond the values themselves. Raises SettingsError."""
    if listens and (before.host, before.port) != (fresh.host, fresh.port):
        _refuse_address(fresh.host, fresh.port)
    if sentence := _in_a_fork(lambda: _build(fresh)):
        raise SettingsError(sentence)


def _refuse_address(host: str, port: int) -> None:
    """gunicorn opens the new listener while its old workers hold the old one, and ends where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"switchyard: a running server cannot change HOST and PORT to {host}:{port}: {reason}; restart it") from None


def _build(settings: Settings) -> None:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # where an attempt would be counted as a worker
    from app import create_app

    create_app(settings)


def _in_a_fork(call: Callable[[], None]) -> str:
    """Why the call failed, or nothing. The drivers that it imports and the files that it opens end with the fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_and_exit(call, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        sentence = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return sentence or ("" if status == 0 else "switchyard: the new settings could not be tried: the attempt did not end well")


def _try_and_exit(call: Callable[[], None], writer: int) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TRIAL_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        call()
        status = 0
    except SettingsError as error:
        os.write(writer, str(error).encode())
    except BaseException as error:  # anything that is wrong with these settings ends here and not in the master
        os.write(writer, f"switchyard: the application cannot be built: {type(error).__name__}: {str(error)[:200]}".encode())
    finally:
        os._exit(status)
