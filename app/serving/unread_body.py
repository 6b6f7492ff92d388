"""The body of a request that was rejected before its body arrived, because its credential was not valid."""

from io import RawIOBase
from typing import Any, NoReturn

from app.errors import ApiError

BODY_NOT_READ = "switchyard.body_not_read"  # in the environ of such a request


class UnreadBody(RawIOBase):
    """Raises ApiError when it is read.

    The application reads it only where the credential has become valid in the meantime, for instance because keys could be fetched.
    """

    def readable(self) -> bool:
        """Return True, so that `read` calls `readinto`."""
        return True

    def readinto(self, _buffer: Any) -> NoReturn:
        """Raise ApiError `unavailable`."""
        sentence = "The body was not read, since the credential could not be checked; send it again."
        raise ApiError("unavailable", sentence, retry_after_ms=1000)
