"""How many connections one address may have open at once. Pure.

Behind a trusted proxy a connection is the proxy's and carries many clients' requests, so there what counts is a client's
requests that are under way and its websockets.
"""


class ConnectionsPerAddress:
    """`enter` and `leave` with an address, or with None for what no single client is behind. At `limit` 0 all may enter."""

    def __init__(self, limit: int):
        self._limit = limit
        self._open: dict[str, int] = {}

    def enter(self, address: str | None) -> bool:
        """False where this address has `limit` already; then it has not entered."""
        if address is None or not self._limit:
            return True
        count = self._open.get(address, 0)
        if count >= self._limit:
            return False
        self._open[address] = count + 1
        return True

    def leave(self, address: str | None) -> None:
        if address is None or not self._limit:
            return
        count = self._open[address] - 1
        if count:
            self._open[address] = count
        else:
            del self._open[address]
