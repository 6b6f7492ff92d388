"""How many connections one address may have open at once. Pure.

Behind a trusted proxy a connection belongs to the proxy and carries requests of many clients. There the requests in progress and the
websockets of a client count instead.
"""


class ConnectionsPerAddress:
    """Counts per address. None stands for an address that many clients share; it has no limit. A `limit` of 0 turns the limit off."""

    def __init__(self, limit: int):
        self._limit = limit
        self._open: dict[str, int] = {}

    def acquire(self, address: str | None) -> bool:
        """Count one more connection. Return False, and count nothing, where the address has `limit` already."""
        if address is None or not self._limit:
            return True
        count = self._open.get(address, 0)
        if count >= self._limit:
            return False
        self._open[address] = count + 1
        return True

    def release(self, address: str | None) -> None:
        """Count one connection less, after an `acquire` that returned True."""
        if address is None or not self._limit:
            return
        count = self._open[address] - 1
        if count:
            self._open[address] = count
        else:
            del self._open[address]
