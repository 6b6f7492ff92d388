"""Every application's configuration: the settings' values under its own overrides.

Answering and enforcing touch no store. The overrides are read anew every TELEMETRY_CONFIG_REFRESH_MS, so that what another
worker wrote or a hand edited arrives within that time; while the store is away the last ones hold, and `check` says so.
Where that is so from the start, the local copy's hold; where there is none, the settings' values.
"""

from threading import Lock
from typing import Any

from app.errors import ApiError
from app.json_values import to_iso
from app.logs import get_logger
from app.settings import Settings
from app.storage.errors import StorageUnavailable
from app.storage.fingerprint import demand_match, fingerprint
from app.storage.local_copy import LocalCopy, NoCopy
from app.telemetry.config.event_filter import AppFilter, EventFilter
from app.telemetry.config.store import ConfigStore, Overrides

log = get_logger(__name__)
MAX_APPS = 1000  # with overrides; each of them may come to some 100 kB of patterns


class Configs:
    """`event_filter` is None while every application takes every event, which is then all that it costs."""

    def __init__(self, store: ConfigStore, settings: Settings, *, copy: LocalCopy | NoCopy | None = None, max_apps: int = MAX_APPS):
        self._max_apps = max_apps
        self._store = store
        self._copy = copy or NoCopy()
        self._max_events = settings.telemetry_max_events
        self._usual = {
            "sample_rate": settings.telemetry_sample_rate,
            "max_batch": min(settings.telemetry_max_batch, settings.telemetry_max_events),
            "flush_interval_ms": settings.telemetry_flush_interval_ms,
            "allow": list(settings.telemetry_allow),
            "deny": list(settings.telemetry_deny),
        }
        self._overrides: dict[str, Overrides] = {}
        self._was_read = False
        self._copied_at: int | None = None  # until when the copy was true, while it is what holds
        self._failure: str | None = None
        # One conversation with the store at a time: an answer read earlier must not overwrite a later write.
        self._conversation = Lock()
        self.event_filter: EventFilter | None = None
        self._keep({})

    def for_app(self, app: str | None) -> dict[str, Any]:
        """By the names of ConfigSchema's attributes."""
        return self._merged(self._serving().get(app, {}))

    def overrides_of(self, app: str) -> Overrides:
        return self._serving().get(app, {})

    def fingerprint_of(self, overrides: Overrides) -> str:
        """Equal while they and what they come to are."""
        return fingerprint([overrides, self._merged(overrides)])

    def put(self, app: str, overrides: Overrides, if_match: frozenset[str] | None = None) -> None:
        """In the place of all that the application had; none at all is the same as removing them. `if_match` are fingerprints,
        one of which it must have now; None lets the last write win. Raises bad_request, limit_exceeded,
        precondition_failed, StorageUnavailable."""
        if overrides.get("max_batch", 1) > self._max_events:
            mistake = {"path": "maxBatch", "message": f"Must be at most {self._max_events}: TELEMETRY_MAX_EVENTS."}
            raise ApiError("bad_request", "The request has the wrong shape; see details.", details=[mistake])
        with self._conversation:
            there = self._store.read_all()
            expected = self._expected(there.get(app, {}), if_match)
            if overrides and app not in there and len(there) >= self._max_apps:
                raise ApiError("limit_exceeded", f"At most {self._max_apps} applications may have a configuration of their own.")
            if overrides:
                self._store.put(app, overrides, expected)
                there[app] = overrides
            elif there.pop(app, None) is not None:
                self._store.delete(app, expected)
            self._keep(there)
            self._copy.keep(there)
        log.info("telemetry_config_changed", app=app, fields=sorted(overrides))

    def remove(self, app: str, if_match: frozenset[str] | None = None) -> None:
        """Raises not_found, precondition_failed, StorageUnavailable."""
        with self._conversation:
            expected = None if if_match is None else self._expected(self._store.read_all().get(app, {}), if_match)
            self._store.delete(app, expected)
            self._keep({name: overrides for name, overrides in self._overrides.items() if name != app})
            if self._was_read:
                self._copy.keep(self._overrides)
        log.info("telemetry_config_changed", app=app, fields=[])

    def refresh(self) -> None:
        """Never raises: whatever goes wrong with the store, it is away, and everything else of this process goes on."""
        with self._conversation:
            try:
                overrides = self._store.read_all()
            except Exception as error:
                self._note_failure(error)
                return
            if overrides != self._overrides or not self._was_read:
                self._keep(overrides)
            self._was_read, self._failure, self._copied_at = True, None, None
            self._copy.keep(overrides)

    def check(self) -> dict[str, Any]:
        """For health."""
        report = {"state": "up", "apps": len(self._overrides)}
        if self._copied_at is not None:
            report["copyAsOf"] = to_iso(self._copied_at)
        return report if self._failure is None else {**report, "state": "degraded", "error": self._failure}

    def _note_failure(self, error: Exception) -> None:
        expected = isinstance(error, StorageUnavailable)
        reason = error.reason if expected else f"{type(error).__name__}: {str(error)[:200]}"
        if self._failure is None:
            log.warning("telemetry_config_away", reason=reason, exc_info=not expected)
            if not self._was_read and (copied := self._copy.recall()):
                overrides, self._copied_at = copied
                self._keep(overrides)
        self._failure = reason

    def _expected(self, current: Overrides, if_match: frozenset[str] | None) -> Overrides | None:
        """What the store must still have when it writes: another worker may be faster than we look."""
        demand_match(self.fingerprint_of(current), if_match)
        return None if if_match is None else current

    def _merged(self, overrides: Overrides) -> dict[str, Any]:
        merged = {**self._usual, **overrides}
        return {**merged, "max_batch": min(merged["max_batch"], self._max_events)}

    def _serving(self) -> dict[str, Overrides]:
        if not self._was_read and self._failure is None:
            self.refresh()  # nobody started the background work: a shell, a test
        return self._overrides

    def _keep(self, overrides: dict[str, Overrides]) -> None:
        event_filter = EventFilter(_app_filter(self._usual), {app: _app_filter({**self._usual, **own}) for app, own in overrides.items()})
        self._overrides, self.event_filter = overrides, None if event_filter.takes_all else event_filter


def _app_filter(config: dict[str, Any]) -> AppFilter:
    return AppFilter(config["sample_rate"], config["allow"], config["deny"])
