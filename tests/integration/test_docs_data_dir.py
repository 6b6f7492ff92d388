"""The table "What lies in DATA_DIR" of docs/operations.md names every file that a server leaves."""

import re
from fnmatch import fnmatch
from pathlib import Path

import requests

from tests.apps import SECRET, WRITE_KEY, bearer

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def patterns_of_the_page() -> list[str]:
    table = PAGE.read_text().partition("## What lies in DATA_DIR")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    return [re.sub(r"<\w+>|…", "*", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def is_named(path: str, patterns: list[str]) -> bool:
    return any(fnmatch(path, name + "*" * name.endswith("/")) or ("/" not in name and fnmatch(Path(path).name, name)) for name in patterns)


def test_every_file_in_the_data_dir_of_a_server_has_a_row(switchyard):
    app = switchyard("flask", APP_ENV="development", JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}")
    batch = {"app": "web", "events": [{"type": "page", "name": "/home", "eventId": "1"}]}
    assert requests.post(f"{app.url}/api/telemetry/batch?writeKey={WRITE_KEY}", json=batch, timeout=5).ok
    admin = bearer("root", "admin")
    assert requests.post(f"{app.url}/api/flags", json={"key": "k", "enabled": True}, headers=admin, timeout=5).ok
    assert requests.put(f"{app.url}/api/telemetry/config/web", json={"maxBatch": 20}, headers=admin, timeout=5).ok
    app.stop()
    files = [path.relative_to(app.data_dir).as_posix() for path in app.data_dir.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if not is_named(path, patterns_of_the_page())] == []
