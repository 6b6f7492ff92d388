"""`flask telemetry import`, with the spool and the statistics, and `flask telemetry spool`."""

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import gevent
import pytest

from app.telemetry.importing.importer import LINES_A_CHUNK
from app.telemetry.spool.event_lines import encode
from app.telemetry.stats.bucket import DAY_MS
from app.telemetry.stats.import_counts import EVENTS_A_FLUSH
from tests.apps import NOW, SECRET, WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import sdk_line, stored_names
from tests.servers.ports import free_port
from tests.servers.switchyard import Switchyard
from tests.unit.telemetry.spool.test_chunks import event, line
from tests.waiting import wait_until

ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}
LOST_AT_A_KILL = EVENTS_A_FLUSH + 5 * LINES_A_CHUNK  # with the four chunks that were under way


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "data" / "spool"
    folder.mkdir(parents=True)
    return folder


def write(folder, name, *lines):
    path = folder / f"events-{name}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def counted(tmp_path, mongo_uri):
    """Return how many events the statistics have."""
    return counted_by(make_app(tmp_path, mongo_uri=mongo_uri))


def counted_by(app):
    query = {"app": "web", "from": NOW - 700 * DAY_MS, "to": NOW + DAY_MS, "bucket": "1d"}
    answer = app.test_client().get("/api/telemetry/stats", query_string=query, headers=ADMIN)
    return answer.get_json()["totals"]["count"]


def rejected(path):
    return [json.loads(row) for row in path.with_name(path.name + ".rejected").read_text().splitlines()]


# --- import


def test_without_files_the_whole_spool_is_imported_and_not_changed(telemetry_command, spool, mongo_uri):
    paths = [write(spool, "0001-1-a", line("a"), line("b")), write(spool, "0002-1-a", line("c"))]
    assert telemetry_command("import") == (0, "importing\n2 files: 3 events imported, 0 already stored, 0 lines rejected\n")
    assert sorted(stored_names(mongo_uri)) == ["a", "b", "c"]
    assert all(path.exists() for path in paths)


def test_a_file_that_is_imported_twice_is_stored_once(telemetry_command, tmp_path, mongo_uri):
    path = write(tmp_path, "elsewhere", line("a"), line("b"))
    telemetry_command("import", path)
    code, output = telemetry_command("import", path)
    assert code == 0
    assert "0 events imported, 2 already stored" in output
    assert sorted(stored_names(mongo_uri)) == ["a", "b"]


def test_lines_that_are_not_events_are_kept_with_the_reason_and_the_exit_code_is_1(telemetry_command, tmp_path, mongo_uri):
    path = write(tmp_path, "x", line("a"), b"nonsense\n", line("b"), line("torn")[:-9])
    code, output = telemetry_command("import", path)
    assert code == 1
    assert "2 events imported, 0 already stored, 2 lines rejected, see the .rejected files" in output
    assert [row["line"] for row in rejected(path)] == ["nonsense", line("torn")[:-9].decode()]
    assert all(row["reason"] for row in rejected(path))
    assert telemetry_command("import", path)[0] == 1
    assert len(rejected(path)) == 2
    assert sorted(stored_names(mongo_uri)) == ["a", "b"]


def test_a_dry_run_reports_numbers_and_writes_nothing(telemetry_command, spool, mongo_uri):
    path = write(spool, "0001-1-a", line("a"), line("b"), b"nonsense\n")
    telemetry_command("import", write(spool, "0002-1-a", line("a")))
    before = sorted(spool.parent.rglob("*"))
    code, output = telemetry_command("import", "--dry-run", path)
    assert code == 1
    assert "1 event to import, 1 already stored, 1 line to reject" in output
    assert stored_names(mongo_uri) == ["a"]
    assert sorted(spool.parent.rglob("*")) == before


def test_without_a_mongo_uri_the_error_names_the_setting(telemetry_command):
    code, output = telemetry_command("import", mongo_uri=None)
    assert code == 1
    assert "MONGO_URI" in output


def test_a_mongo_that_is_away_is_reported_in_a_sentence_without_a_traceback(telemetry_command, spool):
    write(spool, "0001-1-a", line("a"))
    code, output = telemetry_command("import", mongo_uri=f"mongodb://127.0.0.1:{free_port()}/x", mongo_timeout_ms=200)
    assert code == 1
    assert "MongoDB does not answer" in output and "Traceback" not in output


def test_a_missing_file_is_named(telemetry_command):
    code, output = telemetry_command("import", "/no/such/file")
    assert code == 2
    assert "/no/such/file" in output


@pytest.mark.parametrize("concurrency", [1, 8])
def test_several_chunks_under_way_at_once_lose_no_event(telemetry_command, tmp_path, mongo_uri, concurrency):
    path = write(tmp_path, "x", encode([event(f"e{n}") for n in range(3333)]))
    assert "3,333 events imported" in telemetry_command("import", "--concurrency", concurrency, path)[1]
    assert sorted(stored_names(mongo_uri)) == sorted(f"e{n}" for n in range(3333))


def test_a_killed_import_continues_where_it_stopped_and_stores_no_event_twice(tmp_path, mongo_uri, proxy_to):
    slow = proxy_to(urlsplit(mongo_uri).port)  # so that the import lasts long enough to be killed, however fast the machine is
    slow.add("latency", latency=200)
    slow_uri = mongo_uri.replace(f":{urlsplit(mongo_uri).port}/", f":{slow.port}/")
    path = write(tmp_path, "x", encode([event(f"e{n}", props={"text": "x" * 200}) for n in range(40_000)]))
    app = Switchyard("flask", MONGO_URI=slow_uri, JWT_SECRET=SECRET)
    app.data_dir.mkdir()
    progress = app.data_dir / ".import.progress"
    command = [sys.executable, "-m", "flask", "telemetry", "import", str(path)]
    process = subprocess.Popen(command, env=app.environment(), cwd=app.folder, stdout=subprocess.DEVNULL)
    wait_until(lambda: progress.exists() or process.poll() is not None)
    process.kill()
    process.wait()
    done = json.loads(progress.read_text())["state"]["imported"]
    assert 0 < done < 40_000
    slow.remove("latency")
    result = app.flask("telemetry", "import", path)
    assert result.returncode == 0, result.stderr
    assert "Continuing" in result.stdout
    assert not progress.exists()
    names = stored_names(mongo_uri)
    assert len(names) == len(set(names)) == 40_000
    assert 40_000 - LOST_AT_A_KILL <= counted(tmp_path, mongo_uri) <= 40_000
    app.close()


# --- import of events as an SDK sends them


def stored(tmp_path, mongo_uri):
    client = make_app(tmp_path, mongo_uri=mongo_uri).test_client()
    return {event["name"]: event for event in client.get("/api/telemetry/events", headers=ADMIN).get_json()["events"]}


def test_events_as_an_sdk_sends_them_are_stored_once_although_they_are_imported_twice(telemetry_command, tmp_path, mongo_uri):
    ours = [sdk_line(name="b", ts="2025-10-09T08:53:20Z", userId=7), sdk_line(name="c", ts=NOW - 5, eventId="c1"), sdk_line(), sdk_line()]
    path = write(tmp_path, "mine", line("spooled"), *ours)
    assert "5 events imported, 0 already stored, 0 lines rejected\n" in telemetry_command("import", path)[1]
    assert "0 events imported, 5 already stored" in telemetry_command("import", path)[1]
    assert sorted(stored_names(mongo_uri)) == ["a", "a", "b", "c", "spooled"]
    assert counted(tmp_path, mongo_uri) == 3, "two events are dated now, outside this range"
    found = stored(tmp_path, mongo_uri)
    assert (found["b"]["ts"], found["b"]["userId"]) == ("2025-10-09T08:53:20.000Z", "7")
    assert found["c"]["createdAt"] > "2026" and found["c"]["ts"] == "2025-10-09T08:53:19.995Z"


def test_a_line_with_an_event_id_is_the_same_event_as_one_sent_with_that_id(telemetry_command, tmp_path, mongo_uri):
    body = {"app": "web", "events": [{"type": "event", "name": "sent", "eventId": "e1"}]}
    make_app(tmp_path, mongo_uri=mongo_uri).test_client().post("/api/telemetry/batch", json=body, headers=KEY)
    output = telemetry_command("import", write(tmp_path, "mine", sdk_line(eventId="e1"), sdk_line(eventId="e1", app="shop")))[1]
    assert "1 event imported, 1 already stored" in output
    assert sorted(stored_names(mongo_uri)) == ["a", "sent"]


WRONG = {
    "app: Must stand": b'{"type":"event","name":"a"}\n',
    "type: Must be one of": sdk_line(type="x"),
    "name: Missing": b'{"app":"web","type":"event"}\n',
    "ts: Must be epoch": sdk_line(ts="yesterday"),
    "eventId: ": sdk_line(eventId=["x"]),
    "props: Must be": sdk_line(props="text"),
    "array": b"[]\n",
}


def test_a_line_that_the_schema_rejects_is_kept_with_the_message_that_an_sdk_would_get(telemetry_command, tmp_path, mongo_uri):
    path = write(tmp_path, "mine", sdk_line(name="good"), *WRONG.values())
    code, output = telemetry_command("import", path)
    assert code == 1 and f"1 event imported, 0 already stored, {len(WRONG)} lines rejected" in output
    for (reason, text), row in zip(WRONG.items(), rejected(path), strict=True):
        assert row["line"] == text.decode().rstrip() and reason in row["reason"]


def test_a_dry_run_recognizes_such_lines_too(telemetry_command, tmp_path, mongo_uri):
    path = write(tmp_path, "mine", sdk_line(), sdk_line(eventId="x"))
    telemetry_command("import", path)
    with open(path, "ab") as file:
        file.write(sdk_line(name="later"))
    assert "1 event to import, 2 already stored" in telemetry_command("import", "--dry-run", path)[1]


def test_the_help_shows_an_example_of_a_line(telemetry_command):
    assert '{"app": "web", "type": "event", "name": "signup"' in telemetry_command("import", "--help")[1]


# --- import, and the statistics


def test_imported_events_are_counted_once_although_they_are_imported_twice(telemetry_command, tmp_path, mongo_uri):
    path = write(tmp_path, "elsewhere", encode([event(f"e{n}", ts=NOW - n * DAY_MS) for n in range(700)]))
    telemetry_command("import", write(tmp_path, "before", line("e0", ts=NOW)))
    assert counted(tmp_path, mongo_uri) == 1
    for _ in range(2):
        assert telemetry_command("import", path)[0] == 0
        assert counted(tmp_path, mongo_uri) == 700


def test_the_events_of_a_spool_are_not_counted_again_since_its_server_counted_them(telemetry_command, tmp_path, mongo_uri):
    app = make_app(tmp_path)
    body = {"app": "web", "events": [{"type": "event", "name": "a", "ts": NOW}]}
    app.test_client().post("/api/telemetry/batch", json=body, headers=KEY)
    app.extensions["switchyard"].telemetry_rollups.flush()
    assert counted(tmp_path, None) == 1
    code, output = telemetry_command("import")
    assert code == 0
    assert "1 event imported" in output and "1 event not added to the statistics" in output
    assert counted(tmp_path, mongo_uri) == 0
    app = make_app(tmp_path, mongo_uri=mongo_uri)
    with_mongo = app.extensions["switchyard"]
    with_mongo.telemetry_rollups.note([event("b")])
    with_mongo.telemetry_rollups.flush()
    assert counted_by(app) == 1, "new events do not wait behind those that were counted without MongoDB"
    with_mongo.lifecycle.start()  # the background tasks of a server
    try:
        wait_until(lambda: counted_by(app) == 2, sleep=gevent.sleep)
    finally:
        with_mongo.lifecycle.drain(5)


@pytest.mark.parametrize("name", ["1760000000000-77-0000000a1b2c3d", "mine"])
@pytest.mark.parametrize("options", [["--no-count"], []])
def test_events_are_counted_unless_the_file_is_of_a_spool_or_no_count_is_given(telemetry_command, tmp_path, mongo_uri, name, options):
    expected = name == "mine" and not options
    output = telemetry_command("import", *options, write(tmp_path, name, line("a")))[1]
    assert ("1 event not added to the statistics, see --help" in output) is not bool(expected)
    assert counted(tmp_path, mongo_uri) == expected


def test_a_dry_run_adds_nothing_to_the_statistics(telemetry_command, tmp_path, mongo_uri):
    telemetry_command("import", "--dry-run", write(tmp_path, "mine", line("a")))
    assert counted(tmp_path, mongo_uri) == 0


# --- spool


def test_status_lists_the_segments_with_their_writers(telemetry_command, spool, tmp_path):
    write(spool, "1760000000000-77-a", line("a"), line("b"))
    app = make_app(tmp_path)
    app.extensions["switchyard"].telemetry._sink.write([event("c")])
    code, output = telemetry_command("spool", "status")
    assert code == 0
    assert "2 segments" in output and "3 events" in output
    assert "events-1760000000000-77-a.jsonl" in output and "since 2025-10-09T08:53:20.000Z  no writer" in output
    assert f"written by process {os.getpid()}" in output
    assert "oldest: 2025-10-09" in output


def test_status_of_an_empty_spool_is_no_error(telemetry_command):
    code, output = telemetry_command("spool", "status")
    assert code == 0 and output.endswith("No events wait for MongoDB.\n")


def test_verify_names_every_bad_line_by_file_and_number(telemetry_command, spool):
    good, bad = write(spool, "0001-1-a", line("a")), write(spool, "0002-1-a", line("b"), b"nonsense\n", line("torn")[:-9])
    assert telemetry_command("spool", "verify", good) == (0, "1 file checked, 0 bad lines\n")
    code, output = telemetry_command("spool", "verify")
    assert code == 1
    assert f"{bad}:2: " in output and f"{bad}:3: cut off" in output
    assert "2 files checked, 2 bad lines" in output


def test_repair_moves_the_bad_lines_away_and_keeps_the_others_in_order(telemetry_command, spool, mongo_uri):
    path = write(spool, "0001-1-a", line("a"), b"nonsense\n", line("b"), line("torn")[:-9])
    code, output = telemetry_command("spool", "repair")
    assert code == 0
    assert "2 lines moved" in output
    assert path.read_bytes() == line("a") + line("b")
    assert len(rejected(path)) == 2
    assert telemetry_command("spool", "verify")[0] == 0
    assert telemetry_command("spool", "repair") == (0, "done\n")


def test_repair_skips_a_file_that_a_running_process_writes_to(telemetry_command, spool, tmp_path):
    app = make_app(tmp_path)
    app.extensions["switchyard"].telemetry._sink.write([event("a")])
    (path,) = spool.glob("events-*")
    with open(path, "ab") as file:
        file.write(b"nonsense\n")
    assert "in use, skipped" in telemetry_command("spool", "repair")[1]
    assert path.read_bytes() == line("a") + b"nonsense\n"
