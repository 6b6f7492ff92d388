"""Where the rate limit counts while there is no Redis: a dictionary, swept once a second.

limits' own memory starts a thread (with us, a greenlet and a timer) every hundredth of a second while requests come, and
each looks at every caller there is: a tenth of all CPU under a load of small batches, and more with every address.
"""

import time

from limits.storage import Storage

SWEEP_EVERY_S = 1.0


class FixedWindowStorage(Storage):
    """Fixed windows only. A caller's window begins with the first hit and is forgotten when it has ended. It lasts as long as
    it says, whatever is done to the system's clock; `get_expiry` says in the system's time when that will be."""

    STORAGE_SCHEME = ["windows"]

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_):
        super().__init__(uri, wrap_exceptions)
        self._windows: dict[str, tuple[int, float]] = {}
        self._sweep_at = 0.0

    @property
    def base_exceptions(self):
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        count, end = self._windows.get(key, (0, 0.0))
        if end <= now:
            count, end = 0, now + expiry
        self._windows[key] = count + amount, end
        return count + amount

    def get(self, key: str) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        return count if end > time.monotonic() else 0

    def get_expiry(self, key: str) -> float:
        _, end = self._windows.get(key, (0, 0.0))
        return time.time() + max(0.0, end - time.monotonic())

    def check(self) -> bool:
        return True

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP_EVERY_S
        for key in [key for key, (_, end) in self._windows.items() if end <= now]:
            del self._windows[key]
