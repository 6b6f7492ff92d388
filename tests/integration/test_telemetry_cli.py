"""`flask telemetry …`: events that lie in files, by hand."""

import json
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

import gevent
import pytest

from app.telemetry.importing.importer import LINES_A_CHUNK
from app.telemetry.spool.event_lines import encode
from app.telemetry.stats.bucket import DAY_MS
from app.telemetry.stats.import_counts import EVENTS_A_FLUSH
from tests.apps import NOW, SECRET, WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import stored_names
from tests.servers.ports import free_port
from tests.servers.switchyard import Switchyard
from tests.unit.telemetry.spool.test_chunks import event, line

ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}
LOST_AT_A_KILL = EVENTS_A_FLUSH + 5 * LINES_A_CHUNK  # with the four chunks that were under way


@pytest.fixture
def run(tmp_path, mongo_uri):
    """Call it with the words of a command: its exit code and all it printed."""

    def run(*words, **settings):
        app = make_app(tmp_path, **{"mongo_uri": mongo_uri, **settings})
        result = app.test_cli_runner().invoke(args=["telemetry", *map(str, words)])
        return result.exit_code, result.output

    return run


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
    """How many events the statistics know of."""
    return counted_by(make_app(tmp_path, mongo_uri=mongo_uri))


def counted_by(app):
    query = {"app": "web", "from": NOW - 700 * DAY_MS, "to": NOW + DAY_MS, "bucket": "1d"}
    answer = app.test_client().get("/api/telemetry/stats", query_string=query, headers=ADMIN)
    return answer.get_json()["totals"]["count"]


def rejected(path):
    return [json.loads(row) for row in path.with_name(path.name + ".rejected").read_text().splitlines()]


# --- import


def test_without_files_the_whole_spool_is_imported_and_left_as_it_is(run, spool, mongo_uri):
    paths = [write(spool, "0001-1-a", line("a"), line("b")), write(spool, "0002-1-a", line("c"))]
    assert run("import") == (0, "importing\n2 files: 3 events imported, 0 already stored, 0 lines rejected\n")
    assert sorted(stored_names(mongo_uri)) == ["a", "b", "c"]
    assert all(path.exists() for path in paths)


def test_importing_twice_stores_once(run, tmp_path, mongo_uri):
    path = write(tmp_path, "elsewhere", line("a"), line("b"))
    run("import", path)
    code, output = run("import", path)
    assert code == 0
    assert "0 events imported, 2 already stored" in output
    assert sorted(stored_names(mongo_uri)) == ["a", "b"]


def test_lines_that_are_no_events_are_kept_with_the_reason_and_the_exit_code_says_so(run, tmp_path, mongo_uri):
    path = write(tmp_path, "x", line("a"), b"nonsense\n", line("b"), line("torn")[:-9])
    code, output = run("import", path)
    assert code == 1
    assert "2 events imported, 0 already stored, 2 lines rejected, see the .rejected files" in output
    assert [row["line"] for row in rejected(path)] == ["nonsense", line("torn")[:-9].decode()]
    assert all(row["reason"] for row in rejected(path))
    assert run("import", path)[0] == 1
    assert len(rejected(path)) == 2
    assert sorted(stored_names(mongo_uri)) == ["a", "b"]


def test_a_dry_run_counts_and_writes_nothing_anywhere(run, spool, mongo_uri):
    path = write(spool, "0001-1-a", line("a"), line("b"), b"nonsense\n")
    run("import", write(spool, "0002-1-a", line("a")))
    before = sorted(spool.parent.rglob("*"))
    code, output = run("import", "--dry-run", path)
    assert code == 1
    assert "1 event to import, 1 already stored, 1 line to reject" in output
    assert stored_names(mongo_uri) == ["a"]
    assert sorted(spool.parent.rglob("*")) == before


def test_without_a_mongo_uri_it_says_what_to_set(run):
    code, output = run("import", mongo_uri=None)
    assert code == 1
    assert "MONGO_URI" in output


def test_a_mongo_that_is_away_is_a_sentence_and_no_traceback(run, spool):
    write(spool, "0001-1-a", line("a"))
    code, output = run("import", mongo_uri=f"mongodb://127.0.0.1:{free_port()}/x", mongo_timeout_ms=200)
    assert code == 1
    assert "MongoDB does not answer" in output and "Traceback" not in output


def test_a_file_that_is_not_there_is_named(run):
    code, output = run("import", "/no/such/file")
    assert code == 2
    assert "/no/such/file" in output


@pytest.mark.parametrize("concurrency", [1, 8])
def test_many_chunks_under_way_at_once_lose_nothing(run, tmp_path, mongo_uri, concurrency):
    path = write(tmp_path, "x", encode([event(f"e{n}") for n in range(3333)]))
    assert "3,333 events imported" in run("import", "--concurrency", concurrency, path)[1]
    assert sorted(stored_names(mongo_uri)) == sorted(f"e{n}" for n in range(3333))


def test_killed_in_the_middle_it_goes_on_where_it_was_and_stores_nothing_twice(tmp_path, mongo_uri, proxy_to):
    slow = proxy_to(urlsplit(mongo_uri).port)  # so that there is a middle, however fast the machine is
    slow.add("latency", latency=200)
    slow_uri = mongo_uri.replace(f":{urlsplit(mongo_uri).port}/", f":{slow.port}/")
    path = write(tmp_path, "x", encode([event(f"e{n}", props={"text": "x" * 200}) for n in range(40_000)]))
    app = Switchyard("flask", MONGO_URI=slow_uri, JWT_SECRET=SECRET)
    app.data_dir.mkdir()
    progress = app.data_dir / ".import.progress"
    command = [sys.executable, "-m", "flask", "telemetry", "import", str(path)]
    process = subprocess.Popen(command, env=app.environment(), cwd=app.folder, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not progress.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
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


def natural(**fields):
    return json.dumps({"app": "web", "type": "event", "name": "a", **fields}).encode() + b"\n"


def stored(tmp_path, mongo_uri):
    client = make_app(tmp_path, mongo_uri=mongo_uri).test_client()
    return {event["name"]: event for event in client.get("/api/telemetry/events", headers=ADMIN).get_json()["events"]}


def test_lines_as_an_sdk_sends_them_are_stored_once_however_often_they_are_imported(run, tmp_path, mongo_uri):
    ours = [natural(name="b", ts="2025-10-09T08:53:20Z", userId=7), natural(name="c", ts=NOW - 5, eventId="c1"), natural(), natural()]
    path = write(tmp_path, "mine", line("spooled"), *ours)
    assert "5 events imported, 0 already stored, 0 lines rejected\n" in run("import", path)[1]
    assert "0 events imported, 5 already stored" in run("import", path)[1]
    assert sorted(stored_names(mongo_uri)) == ["a", "a", "b", "c", "spooled"]
    assert counted(tmp_path, mongo_uri) == 3, "two of now, which this range is too old for, count as well"
    found = stored(tmp_path, mongo_uri)
    assert (found["b"]["ts"], found["b"]["userId"]) == ("2025-10-09T08:53:20.000Z", "7")
    assert found["c"]["createdAt"] > "2026" and found["c"]["ts"] == "2025-10-09T08:53:19.995Z"


def test_a_line_with_an_event_id_is_the_event_that_was_sent_with_it(run, tmp_path, mongo_uri):
    body = {"app": "web", "events": [{"type": "event", "name": "sent", "eventId": "e1"}]}
    make_app(tmp_path, mongo_uri=mongo_uri).test_client().post("/api/telemetry/batch", json=body, headers=KEY)
    output = run("import", write(tmp_path, "mine", natural(eventId="e1"), natural(eventId="e1", app="shop")))[1]
    assert "1 event imported, 1 already stored" in output
    assert sorted(stored_names(mongo_uri)) == ["a", "sent"]


WRONG = {
    "app: Must stand": b'{"type":"event","name":"a"}\n',
    "type: Must be one of": natural(type="x"),
    "name: Missing": b'{"app":"web","type":"event"}\n',
    "ts: Must be epoch": natural(ts="yesterday"),
    "eventId: ": natural(eventId=["x"]),
    "props: Must be": natural(props="text"),
    "array": b"[]\n",
}


def test_a_line_that_the_schema_does_not_take_is_kept_with_the_words_that_an_sdk_would_get(run, tmp_path, mongo_uri):
    path = write(tmp_path, "mine", natural(name="good"), *WRONG.values())
    code, output = run("import", path)
    assert code == 1 and f"1 event imported, 0 already stored, {len(WRONG)} lines rejected" in output
    for (reason, text), row in zip(WRONG.items(), rejected(path), strict=True):
        assert row["line"] == text.decode().rstrip() and reason in row["reason"]


def test_a_dry_run_knows_such_lines_too(run, tmp_path, mongo_uri):
    path = write(tmp_path, "mine", natural(), natural(eventId="x"))
    run("import", path)
    with open(path, "ab") as file:
        file.write(natural(name="later"))
    assert "1 event to import, 2 already stored" in run("import", "--dry-run", path)[1]


def test_help_says_what_a_line_looks_like(run):
    assert '{"app": "web", "type": "event", "name": "signup"' in run("import", "--help")[1]


# --- import, and the statistics


def test_what_is_imported_is_counted_once_however_often_it_is_imported(run, tmp_path, mongo_uri):
    path = write(tmp_path, "elsewhere", encode([event(f"e{n}", ts=NOW - n * DAY_MS) for n in range(700)]))
    run("import", write(tmp_path, "before", line("e0", ts=NOW)))
    assert counted(tmp_path, mongo_uri) == 1
    for _ in range(2):
        assert run("import", path)[0] == 0
        assert counted(tmp_path, mongo_uri) == 700


def test_a_spool_is_not_counted_again_since_its_server_did_when_it_took_the_events(run, tmp_path, mongo_uri):
    app = make_app(tmp_path)
    body = {"app": "web", "events": [{"type": "event", "name": "a", "ts": NOW}]}
    app.test_client().post("/api/telemetry/batch", json=body, headers=KEY)
    app.extensions["switchyard"].telemetry_rollups.flush()
    assert counted(tmp_path, None) == 1
    code, output = run("import")
    assert code == 0
    assert "1 event imported" in output and "1 event not added to the statistics" in output
    assert counted(tmp_path, mongo_uri) == 0
    app = make_app(tmp_path, mongo_uri=mongo_uri)
    with_mongo = app.extensions["switchyard"]
    with_mongo.telemetry_rollups.note([event("b")])
    with_mongo.telemetry_rollups.flush()
    assert counted_by(app) == 1, "what is new does not wait behind what was counted without MongoDB"
    with_mongo.lifecycle.start()  # what a server does beside its requests
    try:
        with gevent.Timeout(20):
            while counted_by(app) != 2:
                gevent.sleep(0.05)
    finally:
        with_mongo.lifecycle.drain(5)


@pytest.mark.parametrize("name", ["1760000000000-77-0000000a1b2c3d", "mine"])
@pytest.mark.parametrize("options", [["--no-count"], []])
def test_a_file_of_a_spool_is_not_counted_and_another_one_is_unless_no_count_is_given(run, tmp_path, mongo_uri, name, options):
    expected = name == "mine" and not options
    output = run("import", *options, write(tmp_path, name, line("a")))[1]
    assert ("1 event not added to the statistics, see --help" in output) is not bool(expected)
    assert counted(tmp_path, mongo_uri) == expected


def test_a_dry_run_counts_nothing(run, tmp_path, mongo_uri):
    run("import", "--dry-run", write(tmp_path, "mine", line("a")))
    assert counted(tmp_path, mongo_uri) == 0


# --- spool


def test_status_says_what_lies_there_and_who_holds_it(run, spool, tmp_path):
    write(spool, "1760000000000-77-a", line("a"), line("b"))
    app = make_app(tmp_path)
    app.extensions["switchyard"].telemetry._sink.write([event("c")])
    code, output = run("spool", "status")
    assert code == 0
    assert "2 segments" in output and "3 events" in output
    assert "events-1760000000000-77-a.jsonl" in output and "since 2025-10-09T08:53:20.000Z  no writer" in output
    assert f"written by process {os.getpid()}" in output
    assert "oldest: 2025-10-09" in output


def test_status_of_nothing_is_no_trouble(run):
    code, output = run("spool", "status")
    assert code == 0 and output.endswith("No events wait for MongoDB.\n")


def test_verify_names_every_bad_line_by_file_and_number(run, spool):
    good, bad = write(spool, "0001-1-a", line("a")), write(spool, "0002-1-a", line("b"), b"nonsense\n", line("torn")[:-9])
    assert run("spool", "verify", good) == (0, "1 file checked, 0 bad lines\n")
    code, output = run("spool", "verify")
    assert code == 1
    assert f"{bad}:2: " in output and f"{bad}:3: cut off" in output
    assert "2 files checked, 2 bad lines" in output


def test_repair_puts_the_bad_lines_aside_and_keeps_the_rest_in_order(run, spool, mongo_uri):
    path = write(spool, "0001-1-a", line("a"), b"nonsense\n", line("b"), line("torn")[:-9])
    code, output = run("spool", "repair")
    assert code == 0
    assert "2 lines moved" in output
    assert path.read_bytes() == line("a") + line("b")
    assert len(rejected(path)) == 2
    assert run("spool", "verify")[0] == 0
    assert run("spool", "repair") == (0, "done\n")


def test_repair_leaves_a_file_alone_that_a_living_process_holds(run, spool, tmp_path):
    app = make_app(tmp_path)
    app.extensions["switchyard"].telemetry._sink.write([event("a")])
    (path,) = spool.glob("events-*")
    with open(path, "ab") as file:
        file.write(b"nonsense\n")
    assert "in use, skipped" in run("spool", "repair")[1]
    assert path.read_bytes() == line("a") + b"nonsense\n"
