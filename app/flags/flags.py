"""Evaluates flags from a snapshot in memory, changes them in the store and announces the changes.

Evaluation never reads the store. `refresh` replaces the snapshot every FLAGS_REFRESH_MS, so changes by other workers and
manual edits arrive within that time. While the store is away, the last snapshot stays and `check` reports its age; a
process that starts meanwhile takes the snapshot from the local copy.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

from app.clock import Clock, uptime
from app.errors import ApiError
from app.flags.flag import Flag, Snapshot
from app.flags.rules import Context, Decision, evaluate
from app.flags.schemas import EMPTY_WINDOW, MAX_VERSION
from app.flags.store import FlagStore
from app.json_values import MAX_TIMESTAMP_MS, to_iso
from app.logs import get_logger
from app.metrics import Metrics
from app.storage.errors import RETRY_AFTER_MS, StorageUnavailable
from app.storage.fingerprint import demand_match, fingerprint
from app.storage.local_copy import LocalCopy, NoCopy

log = get_logger(__name__)

WRITE_ATTEMPTS = 10


class Flags:
    """`announce` is called with each change, `{"kind": "flag_changed", "key", "deleted"?, "updatedAt"}`.

    `if_match` of a write is a set of fingerprints: the flag must have one of them now, else precondition_failed is raised.
    With None the last write wins. Every write may raise StorageUnavailable.
    """

    def __init__(
        self,
        store: FlagStore,
        clock: Clock,
        metrics: Metrics,
        announce: Callable[[dict[str, Any]], Any],
        copy: LocalCopy | NoCopy | None = None,
        uptime: Clock = uptime,
    ):
        self._store = store
        self._copy = copy or NoCopy()
        self._clock = clock
        self._uptime = uptime
        self._metrics = metrics
        self._announce = announce
        self._snapshot: Snapshot | None = None
        self._current_at: int | None = None  # by uptime: when the snapshot last equalled the store
        self._failure: str | None = None
        # One call of the store at a time: a list that was read before a write must not replace the snapshot made after it.
        self._store_lock = Lock()

    # Reading

    def refresh(self) -> None:
        """Read all flags from the store, and announce those that changed. Never raises: any error means that the store is away."""
        with self._store_lock:
            before, failed_before = self._snapshot, self._failure is not None
            try:
                self._take_current(Snapshot.of(self._store.list_all()))
            except StorageUnavailable as error:
                self._note_failure(error.reason)
            except Exception as error:
                self._note_failure(f"{type(error).__name__}: {str(error)[:200]}", unexpected=True)
        if self._current_at is not None:
            self._metrics.flags_snapshot_age_seconds.set((self._uptime() - self._current_at) / 1000)
        if self._failure is None and (before or failed_before):
            self._announce_changes_since(before or Snapshot.of([]))

    def evaluate_all(self, context: Context, *, with_disabled: bool = False) -> list[tuple[Flag, Decision]]:
        """Decide every flag for `context`, in the order of the keys. Raises `unavailable` when there is no snapshot yet."""
        now = self._clock()
        flags = [flag for flag in self._serving().flags.values() if flag.enabled or with_disabled]
        decided = [(flag, evaluate(flag, context, now)) for flag in flags]
        on = sum(decision.on for _, decision in decided)
        self._metrics.flags_evaluated_total.labels("on").inc(on)
        self._metrics.flags_evaluated_total.labels("off").inc(len(decided) - on)
        return decided

    def fingerprint_for(self, context: Context, *, with_disabled: bool = False) -> str:
        """Return the ETag of evaluate_all's result, without evaluating: it names the flags, the context and the windows passed."""
        snapshot = self._serving()
        caller = repr([context.user_id, context.session_id, context.roles])
        return fingerprint([snapshot.version, snapshot.bounds_passed(self._clock()), caller, with_disabled])

    def get(self, key: str) -> Flag:
        """Return one flag from the store, or from the snapshot while the store is away. Raises not_found."""
        try:
            return self._store.get(key)
        except StorageUnavailable:
            if self._snapshot is None or key not in self._snapshot.flags:
                raise
            return self._snapshot.flags[key]

    def check(self) -> dict[str, Any]:
        """Report to the health page: `down` without a snapshot, `degraded` while the snapshot may be old."""
        if self._snapshot is None or self._current_at is None:
            return {"state": "down", "flags": 0, "error": self._failure or "not read yet"}
        report = {"state": "up", "flags": len(self._snapshot.flags), "snapshotAgeMs": self._uptime() - self._current_at}
        return report if self._failure is None else {**report, "state": "degraded", "error": self._failure}

    # Writing

    def create(self, fields: dict[str, Any]) -> Flag:
        """Create a flag; `fields` are fields of Flag, `key` among them. Raises conflict."""
        flag = Flag(**{**fields, "version": 1, "updated_at": self._clock()})
        with self._store_lock:
            self._store.create(flag)
            self._add_written(flag)
        self._announce_change(flag.key, flag.updated_at)
        return flag

    def replace(self, key: str, fields: dict[str, Any], if_match: frozenset[str] | None = None) -> Flag:
        """Replace a flag; omitted fields get their defaults. Raises not_found and precondition_failed."""
        return self._change(key, lambda current: Flag(**{**fields, "key": key}), if_match)

    def patch(self, key: str, changes: dict[str, Any], if_match: frozenset[str] | None = None) -> Flag:
        """Change the fields in `changes`; `rules` is one field. Raises not_found, bad_request and precondition_failed."""
        return self._change(key, lambda current: _with_window_checked(replace(current, **changes)), if_match)

    def delete(self, key: str, if_match: frozenset[str] | None = None) -> None:
        """Delete a flag. Raises not_found and precondition_failed."""
        with self._store_lock:
            expected_version = None
            if if_match is not None:
                expected_version = self._get_matching(key, if_match).version
            self._store.delete(key, expected_version)
            if self._snapshot:
                self._set_snapshot(self._snapshot.without(key))
        self._announce_change(key, self._clock(), deleted=True)

    def _change(self, key: str, change: Callable[[Flag], Flag], if_match: frozenset[str] | None) -> Flag:
        with self._store_lock:
            flag = self._change_in_store(key, change, if_match)
            self._add_written(flag)
        self._announce_change(key, flag.updated_at)
        return flag

    def _change_in_store(self, key: str, change: Callable[[Flag], Flag], if_match: frozenset[str] | None) -> Flag:
        """Without `if_match`, repeat the change on the newest version when another process wrote in between."""
        for _ in range(WRITE_ATTEMPTS):
            current = self._get_matching(key, if_match)
            later = max(self._clock(), current.updated_at + 1)  # receivers order changes by updatedAt
            version = current.version % MAX_VERSION + 1  # stores refuse to read a larger one
            flag = replace(change(current), version=version, updated_at=min(later, MAX_TIMESTAMP_MS))
            try:
                self._store.replace(flag, current.version)
                return flag
            except ApiError as error:
                if error.code != "precondition_failed" or if_match is not None:
                    raise
        raise ApiError("unavailable", "Too many are changing this flag at once.", retry_after_ms=RETRY_AFTER_MS["unavailable"])

    def _get_matching(self, key: str, if_match: frozenset[str] | None) -> Flag:
        current = self._store.get(key)
        demand_match(current.fingerprint, if_match)
        return current

    # The snapshot

    def _serving(self) -> Snapshot:
        if self._snapshot is None and self._failure is None:
            self.refresh()  # no background task has: a shell, a test, a request before the first refresh
        if self._snapshot is None:
            raise ApiError("unavailable", "The flags have not been read yet.", retry_after_ms=RETRY_AFTER_MS["unavailable"])
        return self._snapshot

    def _take_current(self, snapshot: Snapshot) -> None:
        if self._failure is not None:
            log.info("flags_store_back", flags=len(snapshot.flags))
        self._set_snapshot(snapshot)
        self._current_at, self._failure = self._uptime(), None

    def _add_written(self, flag: Flag) -> None:
        """Without a snapshot, do nothing: a snapshot of this flag alone would hide the others."""
        if self._snapshot:
            self._set_snapshot(self._snapshot.with_flag(flag))

    def _set_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._copy.keep(snapshot.flags)

    def _note_failure(self, reason: str, *, unexpected: bool = False) -> None:
        if self._failure is None:
            if self._snapshot is None and (copied := self._copy.recall()):
                self._snapshot = Snapshot.of(copied[0].values())
                self._current_at = self._uptime() - max(0, self._clock() - copied[1])
            log.warning("flags_store_away", reason=reason, serving_snapshot=self._snapshot is not None, exc_info=unexpected)
        self._failure = reason

    # Announcing

    def _announce_changes_since(self, before: Snapshot) -> None:
        after = self._snapshot
        if after is None or after.version == before.version:
            return
        for key in after.keys_changed_since(before):
            flag, earlier = after.flags.get(key), before.flags.get(key)
            is_dated = flag is not None and (earlier is None or flag.updated_at != earlier.updated_at)
            self._announce_change(key, flag.updated_at if flag and is_dated else self._clock(), deleted=flag is None)

    def _announce_change(self, key: str, updated_at: int, deleted: bool = False) -> None:
        """Log a failed announcement and continue: the change is stored, and clients get it with their next request."""
        change: dict[str, Any] = {"kind": "flag_changed", "key": key, "updatedAt": to_iso(updated_at)}
        if deleted:
            change["deleted"] = True
        log.info("flag_changed", key=key, deleted=deleted)
        try:
            self._announce(change)
        except Exception as error:
            log.warning("flag_change_not_announced", key=key, error=f"{type(error).__name__}: {error}")


def _with_window_checked(flag: Flag) -> Flag:
    """Check what the schema cannot: a patch of one bound against the stored other bound."""
    if flag.has_empty_window:
        raise ApiError("bad_request", details=[{"path": "endAt", "message": EMPTY_WINDOW}])
    return flag
