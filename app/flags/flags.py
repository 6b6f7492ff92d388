"""The flags as the rest of the house knows them: a snapshot to decide from, and the writes that change it.

Evaluating touches no store. The snapshot is read anew every FLAGS_REFRESH_MS, so that what another worker wrote or a
hand edited arrives within that time; while the store is away the last one goes on serving, and `check` says its age. Where
that is so from the start, the local copy is the last one.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

from app.clock import Clock, uptime
from app.errors import ApiError
from app.flags.evaluate import Decision, evaluate
from app.flags.flag import Flag
from app.flags.rules import Context
from app.flags.schemas import EMPTY_WINDOW, MAX_VERSION
from app.flags.snapshot import Snapshot
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
    """`announce` is told of every change, `{"kind": "flag_changed", "key", "deleted"?, "updatedAt"}`.

    `if_match` in the writes is a set of fingerprints, one of which the flag must have now (else precondition_failed);
    None lets the last write win. Every write may raise StorageUnavailable.
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
        self._current_at: int | None = None  # by uptime: when the snapshot was last known to be what the store has
        self._failure: str | None = None
        # One conversation with the store at a time: an answer read earlier must not overwrite a later write's snapshot.
        self._conversation = Lock()

    # Reading

    def refresh(self) -> None:
        """Never raises: whatever goes wrong with the store, it is away, and everything else of this process goes on."""
        with self._conversation:
            before, failed_before = self._snapshot, self._failure is not None
            try:
                self._keep(Snapshot.of(self._store.list_all()))
            except StorageUnavailable as error:
                self._note_failure(error.reason)
            except Exception as error:
                self._note_failure(f"{type(error).__name__}: {str(error)[:200]}", unexpected=True)
        if self._current_at is not None:
            self._metrics.flags_snapshot_age_seconds.set((self._uptime() - self._current_at) / 1000)
        if self._failure is None and (before or failed_before):
            self._announce_what_others_changed(before or Snapshot.of([]))

    def evaluate_all(self, context: Context, *, with_disabled: bool = False) -> list[tuple[Flag, Decision]]:
        """In the order of the keys. Raises `unavailable` only when there never was a snapshot to answer from."""
        now = self._clock()
        flags = [flag for flag in self._serving().flags.values() if flag.enabled or with_disabled]
        decided = [(flag, evaluate(flag, context, now)) for flag in flags]
        on = sum(decision.on for _, decision in decided)
        self._metrics.flags_evaluated_total.labels("on").inc(on)
        self._metrics.flags_evaluated_total.labels("off").inc(len(decided) - on)
        return decided

    def fingerprint_for(self, context: Context, *, with_disabled: bool = False) -> str:
        """Equal while evaluate_all's answer is: it depends on the flags, on whom they are for, and on open windows alone."""
        snapshot = self._serving()
        whom = [context.user_id, context.session_id, context.roles]
        return fingerprint([snapshot.version, snapshot.era(self._clock()), repr(whom), with_disabled])

    def get(self, key: str) -> Flag:
        """What the store has, else the snapshot. Raises not_found."""
        try:
            return self._store.get(key)
        except StorageUnavailable:
            flag = self._snapshot and self._snapshot.flags.get(key)
            if not flag:
                raise
            return flag

    def check(self) -> dict[str, Any]:
        """For health: `down` means that there is nothing to answer from, `degraded` that it may be old."""
        if self._current_at is None:
            return {"state": "down", "flags": 0, "error": self._failure or "not read yet"}
        report = {"state": "up", "flags": len(self._snapshot.flags), "snapshotAgeMs": self._uptime() - self._current_at}
        return report if self._failure is None else {**report, "state": "degraded", "error": self._failure}

    # Writing

    def create(self, fields: dict[str, Any]) -> Flag:
        """`fields` are Flag's, with `key`. Raises conflict."""
        flag = Flag(**{**fields, "version": 1, "updated_at": self._clock()})
        with self._conversation:
            self._store.create(flag)
            self._keep_written(flag)
        self._tell(flag.key, flag.updated_at)
        return flag

    def replace(self, key: str, fields: dict[str, Any], if_match: frozenset[str] | None = None) -> Flag:
        """A field that is not among `fields` gets its default. Raises not_found and precondition_failed."""
        return self._change(key, lambda current: Flag(**{**fields, "key": key}), if_match)

    def patch(self, key: str, changes: dict[str, Any], if_match: frozenset[str] | None = None) -> Flag:
        """A field that is not among `changes` stays; rules are one field. Raises not_found and precondition_failed."""
        return self._change(key, lambda current: _checked(replace(current, **changes)), if_match)

    def delete(self, key: str, if_match: frozenset[str] | None = None) -> None:
        """Raises not_found and precondition_failed."""
        with self._conversation:
            expected_version = None
            if if_match is not None:
                expected_version = self._get_matching(key, if_match).version
            self._store.delete(key, expected_version)
            if self._snapshot:
                self._put_in_place(self._snapshot.without(key))
        self._tell(key, self._clock(), deleted=True)

    def _change(self, key: str, make: Callable[[Flag], Flag], if_match: frozenset[str] | None) -> Flag:
        with self._conversation:
            flag = self._change_in_store(key, make, if_match)
            self._keep_written(flag)
        self._tell(key, flag.updated_at)
        return flag

    def _change_in_store(self, key: str, make: Callable[[Flag], Flag], if_match: frozenset[str] | None) -> Flag:
        """Made again from what is there now, where another process was faster and the caller did not mind."""
        for _ in range(WRITE_ATTEMPTS):
            current = self._get_matching(key, if_match)
            later = max(self._clock(), current.updated_at + 1)  # so that receivers can order changes by updatedAt
            version = current.version % MAX_VERSION + 1  # restarts with 1 after the last one, which only a manual edit reaches
            flag = replace(make(current), version=version, updated_at=min(later, MAX_TIMESTAMP_MS))
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
            self.refresh()  # nobody started the background work: a shell, a test, a request before the first refresh
        if self._snapshot is None:
            raise ApiError("unavailable", "The flags have not been read yet.", retry_after_ms=RETRY_AFTER_MS["unavailable"])
        return self._snapshot

    def _keep(self, snapshot: Snapshot) -> None:
        if self._failure is not None:
            log.info("flags_store_back", flags=len(snapshot.flags))
        self._put_in_place(snapshot)
        self._current_at, self._failure = self._uptime(), None

    def _keep_written(self, flag: Flag) -> None:
        """Only on top of a snapshot: one flag alone would say that there are no others."""
        if self._snapshot:
            self._put_in_place(self._snapshot.with_flag(flag))

    def _put_in_place(self, snapshot: Snapshot) -> None:
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

    def _announce_what_others_changed(self, before: Snapshot) -> None:
        after = self._snapshot
        if after.version == before.version:
            return
        for key in after.keys_changed_since(before):
            flag, earlier = after.flags.get(key), before.flags.get(key)
            dated_by_hand = flag and earlier and flag.updated_at == earlier.updated_at
            self._tell(key, flag.updated_at if flag and not dated_by_hand else self._clock(), deleted=flag is None)

    def _tell(self, key: str, updated_at: int, deleted: bool = False) -> None:
        """The change is stored already: whoever cannot be told now reads it with the next request."""
        change = {"kind": "flag_changed", "key": key, "updatedAt": to_iso(updated_at)}
        if deleted:
            change["deleted"] = True
        log.info("flag_changed", key=key, deleted=deleted)
        try:
            self._announce(change)
        except Exception as error:
            log.warning("flag_change_not_announced", key=key, error=f"{type(error).__name__}: {error}")


def _checked(flag: Flag) -> Flag:
    """What a merge can spoil though each part was right."""
    if flag.has_empty_window:
        raise ApiError("bad_request", details=[{"path": "endAt", "message": EMPTY_WINDOW}])
    return flag
