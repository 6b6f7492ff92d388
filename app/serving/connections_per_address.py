"""Limits how many connections one address may have open at once. Pure.

Behind a trusted proxy, a connection carries the requests of many clients. There the limit applies to the requests in progress and the
websockets of one client.
"""


class ConnectionsPerAddress:
    """Counts the connections of each address. `limit` 0 means no limit. The address None, which many clients share, has none either."""

    def __init__(self, limit: int):
        self._limit = limit
        self._open: dict[str, int] = {}

    def acquire(self, address: str | None) -> bool:
        """Count one more connection and return True. Return False, and count nothing, where the address has reached the limit."""
        if address is None or not self._limit:
            return True
        count = self._open.get(address, 0)
        if count >= self._limit:
            return False
        self._open[address] = count + 1
        return True

    def release(self, address: str | None) -> None:
        """Count one connection less. Call it once for each `acquire` that returned True."""
        if address is None or not self._limit:
            return
        count = self._open[address] - 1
        if count:
            self._open[address] = count
        else:
            del self._open[address]
