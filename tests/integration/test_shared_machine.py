"""DATA_DIR on a machine with other accounts: none of them reads it, and none of them holds its locks."""

import fcntl
import os
import re
import stat
from pathlib import Path

import pytest

from app.storage.disk import is_open_to_others, make_file, make_folder, private
from tests.apps import WRITE_KEY, bearer, make_app

FLAG = {"key": "f", "enabled": True, "rules": {}}
NOBODY = 65_534


@pytest.fixture
def any_umask():
    """The widest, so that it is not the umask of this machine that keeps others out."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def used(tmp_path, any_umask):
    """A data folder of a server that stored an event, a flag, a configuration, statistics and the numbers of a durable topic."""
    app = make_app(tmp_path)
    parts, client = app.extensions["switchyard"], app.test_client()
    parts.lifecycle.start()
    client.post("/api/telemetry/batch", json={"app": "w", "events": [{"type": "page", "name": "x"}]}, headers={"X-Write-Key": WRITE_KEY})
    assert client.post("/api/flags", json=FLAG, headers=bearer("a", "admin")).status_code == 201
    assert client.put("/api/telemetry/config/w", json={"maxBatch": 5}, headers=bearer("a", "admin")).status_code == 200
    parts.lifecycle.drain(5)
    return parts.settings.data_dir


def test_folders_are_0750_and_files_0640_whatever_the_umask(used):
    modes = {path.relative_to(used.parent).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in [used, *used.rglob("*")]}
    folders = {name: mode for name, mode in modes.items() if (used.parent / name).is_dir()}
    files = {name: mode for name, mode in modes.items() if name not in folders}
    assert {name: oct(mode) for name, mode in folders.items() if mode != 0o750} == {}
    assert {name: oct(mode) for name, mode in files.items() if mode != (0o600 if "development" in name else 0o640)} == {}
    assert {"data", "data/spool"} <= folders.keys() and {"data/flags.json", "data/flags.json.lock", "data/rollups.sqlite"} <= files.keys()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_account_holds_no_lock_and_reads_nothing(used):
    for parent in used.parents:  # pytest's own folders are 0700, which would prove nothing
        if parent.stat().st_uid == os.getuid() and stat.S_IMODE(parent.stat().st_mode) == 0o700:
            parent.chmod(0o755)
    paths = [used, *used.rglob("*")]
    used.chmod(0o755)  # an operator's own, wider one: the files themselves keep others out, too
    assert _reachable_as(NOBODY, [path for path in paths if path.is_file()]) == []
    used.chmod(0o750)
    assert _reachable_as(NOBODY, paths) == []


def _reachable_as(uid, paths):
    """Those that the account can open, and so lock."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        os.write(writing, "\n".join(str(path) for path in paths if _can_lock(path)).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read().split()


def _can_lock(path):
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("mode", "is_open"), [(0o750, False), (0o700, False), (0o755, True), (0o770, True), (0o751, True)])
def test_an_existing_folder_that_is_wider_is_a_warning_and_no_refusal(tmp_path, mode, is_open, capfd):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    assert is_open_to_others(tmp_path / "data") is is_open
    assert make_app(tmp_path).test_client().get("/livez").status_code == 200
    assert ("data_dir_is_open" in "".join(capfd.readouterr())) is is_open


def test_what_is_there_already_keeps_its_mode_and_its_content(tmp_path, any_umask):
    (tmp_path / "there").write_text("mine")
    (tmp_path / "there").chmod(0o600)
    make_file(tmp_path / "there")
    with open(tmp_path / "there", "a", opener=private) as file:
        file.write("!")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "there").read_text() == "mine!"
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o600
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o750, 0o750]


def test_a_narrower_umask_stays(tmp_path):
    before = os.umask(0o077)
    try:
        make_folder(tmp_path / "folder")
        make_file(tmp_path / "file")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("folder", "file")] == [0o700, 0o600]


APP = Path(__file__).parents[2] / "app"
ELSEWHERE = {"disk.py", "development.py", "worker_files.py", "metrics_folder.py"}  # the helper, 0600 by itself, and not in DATA_DIR
MAKES = re.compile(r"\.mkdir\(|makedirs\(|\.write_text\(|\.write_bytes\(|\bopen\([^()]*(\([^()]*\)[^()]*)*\"[waxr+b]*[wax+][b+]*\"|O_CREAT")
IS_PRIVATE = re.compile(r"private|FOLDER_MODE|data_dir\.parent")


def test_no_part_makes_a_file_or_a_folder_in_another_way():
    modules = [path for path in APP.rglob("*.py") if path.name not in ELSEWHERE]
    lines = [(path.name, line.strip()) for path in modules for line in path.read_text().splitlines()]
    made = [(name, line) for name, line in lines if MAKES.search(line) and '"rb+"' not in line]
    assert len(made) > 6  # the pattern finds those that there are
    assert [row for row in made if not IS_PRIVATE.search(row[1])] == []
