"""Cells in memory, gone with the process: for tests, and the plainest reading of what a store promises."""

from app.telemetry.stats.cell import LEVELS_MS, Cell, Delta, widened


class MemoryRollups:
    def __init__(self):
        self._cells: dict[tuple, Cell] = {}
        self._applied: dict[str, int] = {}

    def apply(self, delta: Delta) -> None:
        if self._applied.get(delta.worker, 0) >= delta.seq:
            return
        self._applied[delta.worker] = delta.seq
        for level_ms in LEVELS_MS:
            for cell in widened(delta.cells, level_ms):
                place = (level_ms, cell.app, cell.env, cell.at)
                self._cells.setdefault(place, Cell(cell.app, cell.env, cell.at)).add(cell)

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Cell]:
        return [
            cell
            for (level, *_), cell in self._cells.items()
            if level == level_ms and cell.app == app and env in (None, cell.env) and since <= cell.at < until
        ]

    def apps(self, at_most: int) -> list[str]:
        return list(dict.fromkeys(app for _, app, *_ in self._cells))[:at_most]

    def check(self) -> dict[str, str]:
        return {"state": "up"}

    def tend(self) -> None:
        """Nothing here grows old."""
