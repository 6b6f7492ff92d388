"""The file of flags as people and processes treat it: edited by hand, written by several, killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.flags import Flags
from app.flags.rules import Context
from app.flags.store.file import FileFlagStore
from app.metrics import Metrics
from app.storage import json_file
from app.storage.errors import StorageUnavailable
from tests.apps import NOW, Clock

IN_ANOTHER_PROCESS = """
import os, signal
from app.flags.flag import Flag
from app.flags.store.file import FileFlagStore
store = FileFlagStore({path!r})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flags.json"


@pytest.fixture
def store(path):
    return FileFlagStore(path)


@pytest.fixture
def flags(store):
    return Flags(store, Clock(), Metrics(), announce=lambda change: None)


def on(flags):
    return {flag.key: decision.on for flag, decision in flags.evaluate_all(Context())}


def reason(call, *args):
    with pytest.raises(StorageUnavailable) as refused:
        call(*args)
    return refused.value.reason


def in_another_process(path, code):
    """`code` with a `store` and `Flag`, as a running process; leaving `with` waits for it and closes its pipe."""
    return subprocess.Popen([sys.executable, "-c", IN_ANOTHER_PROCESS.format(path=str(path)) + code], stdout=subprocess.PIPE, text=True)


def exit_codes(path, *codes):
    """What several processes end with, side by side."""
    with ExitStack() as stack:
        running = [stack.enter_context(in_another_process(path, code)) for code in codes]
        for process in running:
            process.communicate(timeout=60)
        return [process.returncode for process in running]


# --- edited by hand


def test_a_manually_written_file_is_read(path, flags):
    path.write_text('{"flags": [{"key": "a", "enabled": true}, {"key": "b", "enabled": true, "rules": {"percent": 0}}]}')
    assert on(flags) == {"a": True, "b": False}


def test_an_edit_is_picked_up_by_the_next_refresh_and_announced(path, store):
    announced = []
    flags = Flags(store, Clock(), Metrics(), announce=announced.append)
    path.write_text('{"flags": [{"key": "a", "enabled": true}, {"key": "b", "enabled": true}]}')
    flags.refresh()
    path.write_text('{"flags": [{"key": "a", "enabled": false}, {"key": "b", "enabled": true}]}')
    flags.refresh()
    assert on(flags) == {"b": True}
    assert [change["key"] for change in announced] == ["a"]


BROKEN = {
    "": "not JSON",
    '{"flags": [': "not JSON",
    "[]": "not of the form",
    '{"flags": {}}': "not of the form",
    '{"flags": [], "flag": []}': "not of the form",
    '{"flags": [{"enabled": true}]}': "flags.0.key",
    '{"flags": [{"key": "a"}, {"key": "b", "rules": {"percnt": 5}}]}': "flag b: flags.1.rules.percnt: There is no such rule",
    '{"flags": ["a"]}': "flags.0",
    '{"flags": [{"key": "a"}, {"key": "a"}]}': "has the flag a twice",
    '{"flags": [{"key": "a", "startAt": "soon"}]}': "flags.0.startAt",
}


@pytest.mark.parametrize(("content", "why"), BROKEN.items())
def test_a_file_with_mistakes_keeps_the_last_snapshot_reports_the_mistake_and_is_never_replaced(path, flags, content, why):
    path.write_text('{"flags": [{"key": "a", "enabled": true}]}')
    flags.refresh()
    path.write_text(content)
    flags.refresh()
    assert on(flags) == {"a": True}
    assert flags.check()["state"] == "degraded"
    assert "flags.json" in flags.check()["error"] and why in flags.check()["error"]
    for write in (lambda: flags.create({"key": "c"}), lambda: flags.patch("a", {}), lambda: flags.delete("a")):
        assert why in reason(write)
    assert path.read_text() == content


def test_a_corrected_file_is_read_again(path, flags):
    path.write_text("{")
    flags.refresh()
    path.write_text('{"flags": [{"key": "a", "enabled": true}]}')
    flags.refresh()
    assert on(flags) == {"a": True}
    assert flags.check()["state"] == "up"


def test_a_byte_order_mark_is_ignored(path, store):
    path.write_bytes(b'\xef\xbb\xbf{"flags": [{"key": "a"}]}\r\n')
    assert [flag.key for flag in store.list_all()] == ["a"]


def test_a_file_over_the_limit_is_refused_before_it_is_read(path, store):
    with open(path, "wb") as file:
        file.truncate(json_file.MAX_FILE_BYTES + 1)
    assert "has more than" in reason(store.list_all)


def test_a_write_that_would_take_the_file_over_the_limit_is_refused(path, flags, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_FILE_BYTES", 2000)
    flags.create({"key": "a", "enabled": True, "description": "x" * 800})
    before = path.read_bytes()
    with pytest.raises(ApiError) as refused:
        flags.create({"key": "b", "description": "x" * 1000})
    assert refused.value.code == "limit_exceeded"
    assert path.read_bytes() == before
    flags.patch("a", {"description": None})
    assert on(flags) == {"a": True}


def test_a_flag_with_the_last_date_and_the_last_version_can_still_be_changed(path, flags):
    last = {"version": 2**53 - 1, "updatedAt": "9999-12-31T23:59:59.999Z"}
    path.write_text(json.dumps({"flags": [{"key": "a", "enabled": False, **last}]}))
    for version in (1, 2):
        flag = flags.patch("a", {"enabled": True})
        assert flag.record["version"] == version
        assert flag.record["updatedAt"] == last["updatedAt"]
    flags.refresh()
    assert on(flags) == {"a": True}


def test_a_write_keeps_the_order_the_layout_and_the_permissions_of_the_file(path, flags):
    path.write_text('{"flags": [{"key": "z", "enabled": true}, {"key": "a", "enabled": true}]}')
    path.chmod(0o640)
    flags.create({"key": "m", "description": "für alle"})
    text = path.read_text()
    assert [record["key"] for record in json.loads(text)["flags"]] == ["z", "a", "m"]
    assert '\n      "key": "m",\n' in text and "für alle" in text and text.endswith("}\n")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_to_a_file_elsewhere_stays_a_link(tmp_path):
    (tmp_path / "elsewhere.json").write_text('{"flags": []}')
    (tmp_path / "flags.json").symlink_to(tmp_path / "elsewhere.json")
    FileFlagStore(tmp_path / "flags.json").create(Flag("a"))
    assert (tmp_path / "flags.json").is_symlink()
    assert "a" in (tmp_path / "elsewhere.json").read_text()


# --- a disk that refuses


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_file(path, store, monkeypatch):
    store.create(Flag("a"))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json_file.os, "fsync", full)
    assert "No space left on device" in reason(store.create, Flag("b"))
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["flags.json", "flags.json.lock"]


def test_a_missing_folder_refuses_writes(tmp_path):
    store = FileFlagStore(tmp_path / "gone" / "flags.json")
    assert store.list_all() == []
    assert "cannot be locked" in reason(store.create, Flag("a"))


def test_a_lock_that_is_never_released_refuses_writes_and_does_not_hang_the_server(path, store, monkeypatch):
    monkeypatch.setattr(json_file, "LOCK_PATIENCE_S", 0.1)
    with json_file.JsonFile(path).locked():
        started = time.monotonic()
        assert "locked by another process" in reason(FileFlagStore(path).create, Flag("a"))
        assert time.monotonic() - started < 2
    FileFlagStore(path).create(Flag("a"))


# --- several processes


def test_concurrent_writes_of_several_processes_are_all_kept(path):
    assert exit_codes(path, *(f"for n in range(40): store.create(Flag(f'w{writer}-{{n}}'))" for writer in range(3))) == [0, 0, 0]
    keys = {flag.key for flag in FileFlagStore(path).list_all()}
    assert keys == {f"w{writer}-{n}" for writer in range(3) for n in range(40)}


def test_concurrent_patches_of_one_flag_are_all_kept(path, store):
    store.create(Flag("count", rules={"percent": 0}))
    code = (
        "from app.flags.flags import Flags\nfrom app.metrics import Metrics\nfrom dataclasses import replace\n"
        "flags = Flags(store, lambda: 0, Metrics(), announce=print)\n"
        "for n in range(30): flags._change('count', lambda now: replace(now, rules={'percent': now.rules['percent'] + 1}), None)\n"
    )
    assert exit_codes(path, code, code, code) == [0, 0, 0]
    assert store.get("count").rules == {"percent": 90}
    assert store.get("count").version == 91


def test_another_process_sees_a_write_at_once(path, store):
    assert exit_codes(path, "store.create(Flag('a'))") == [0]
    assert store.get("a") == Flag("a")


# --- killed


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_before_the_new_file_is_in_place_leaves_the_old_one_and_the_next_write_works(path, store, moment):
    store.create(Flag("a", updated_at=NOW))
    code = f"os.{moment} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\nstore.create(Flag('b'))\n"
    assert exit_codes(path, code) == [-signal.SIGKILL]
    assert store.list_all() == [Flag("a", updated_at=NOW)]
    store.create(Flag("c"))
    assert [flag.key for flag in store.list_all()] == ["a", "c"]
    assert sorted(os.listdir(path.parent)) == ["flags.json", "flags.json.lock"]


def test_a_kill_during_writes_loses_no_answered_write(path, store):
    code = "for n in range(1, 100_000):\n    store.create(Flag(f'n{n}'))\n    print(n, flush=True)\n"
    with in_another_process(path, code) as writer:
        for _ in range(20):
            writer.stdout.readline()
        threading.Timer(0.0137, writer.kill).start()
        answered = [int(line) for line in writer.stdout if line.endswith("\n")]
    keys = {flag.key for flag in store.list_all()}
    last = max([20, *answered])
    assert {f"n{n}" for n in range(1, last + 1)} <= keys
    assert len(keys) in (last, last + 1)  # the one that was written and not answered yet may be there
    store.create(Flag("after"))


# --- two at one


def test_a_writer_that_read_an_older_version_is_refused_across_processes(path, store):
    store.create(Flag("a"))
    seen = store.get("a")
    code = "flag = store.get('a')\nstore.replace(Flag('a', True, version=2), flag.version)\n"
    assert exit_codes(path, code) == [0]
    with pytest.raises(ApiError) as refused:
        store.replace(Flag("a", version=2), seen.version)
    assert refused.value.code == "precondition_failed"
