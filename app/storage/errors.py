"""The one error of every part that stores something: in MongoDB, in SQLite, or in files under DATA_DIR.

It is an ApiError, so that app/http/errors.py and the realtime protocol render it like any other row of the catalogue.
"""

from app.errors import MAX_REASON, ApiError

RETRY_AFTER_MS = {"unavailable": 2000, "storage_full": 5000}


class StorageUnavailable(ApiError):
    """A store cannot be reached, or cannot keep what it was given. The same call may succeed later.

    `reason` is a sentence for operators and logs, and may name a host or a folder. Clients get `message`, or the sentence of the
    `code`: `unavailable` or `storage_full`. What was written may be stored all the same.
    """

    def __init__(self, reason: str, *, message: str | None = None, code: str = "unavailable"):
        super().__init__(code, message, retry_after_ms=RETRY_AFTER_MS[code])
        self.reason = reason

    @property
    def summary(self) -> str:
        """Return the reason, cut for a log."""
        return self.reason[:MAX_REASON]

    def __str__(self) -> str:
        return self.reason
