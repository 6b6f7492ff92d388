"""When to leave a MongoDB alone that has failed, so that nobody queues up behind its timeout, and when to try it again."""

FIRST_REST_MS = 500
LONGEST_REST_MS = 4000  # then one try in four seconds may cost a timeout, and no more of a recovery is missed


class Breaker:
    """Pure: closed while things work; after a failure open for a rest that doubles, then one caller may try. Failures of
    those who had begun before it opened are news of the same outage and do not double it."""

    def __init__(self):
        self._rest_ms = 0
        self._rested_since = 0
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        return self._rest_ms > 0

    def lets_through(self, now: int) -> bool:
        if not self.is_open:
            return True
        if 0 <= now - self._rested_since < self._rest_ms:  # a clock that was set back does not lengthen the rest
            return False
        self._rested_since, self._is_trying = now, True  # the others go on resting while this one tries
        return True

    def failed(self, now: int) -> bool:
        """True when this failure opened it."""
        opened = not self.is_open
        if opened or self._is_trying:
            self._rest_ms = min(LONGEST_REST_MS, self._rest_ms * 2) if self._rest_ms else FIRST_REST_MS
            self._rested_since, self._is_trying = now, False
        return opened

    def succeeded(self) -> bool:
        """True when this success closed it."""
        was_open, self._rest_ms, self._is_trying = self.is_open, 0, False
        return was_open
