"""`flask telemetry import` reads everything that a server gives out, and continues an interrupted import where that is safe."""

import gzip
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from functools import partial

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, json_util

from app.telemetry.importing.importer import LINES_A_CHUNK
from tests.apps import NOW, WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import sdk_line, stored_names
from tests.servers.ports import free_port
from tests.servers.switchyard import Switchyard
from tests.unit.telemetry.spool.test_chunks import line

TS = datetime(2025, 1, 2)
ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}


@pytest.fixture
def run(telemetry_command):
    """A function that runs `flask telemetry import` and returns its exit code and output."""
    return partial(telemetry_command, "import")


@pytest.fixture
def client(tmp_path, mongo_uri):
    """Return a function that makes a client with a connection of its own: each command closes the earlier connections."""
    return lambda: make_app(tmp_path, mongo_uri=mongo_uri).test_client()


def file_of(tmp_path, content, name="given.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


# Events that a server gave out


@pytest.fixture
def stored(client, collection):
    """Documents of every kind that a server stores, and one of another program."""
    ref = {"$ref": "users", "$id": "u1"}
    events = [
        {"type": "event", "name": "plain", "props": {"n": 1, "f": 1.5, "big": 2**53, "none": None, "ref": ref, "list": [{"$oid": "x"}]}},
        {"type": "perf", "name": "moved", "ts": 1_600_000_000_000, "eventId": "e1", "userId": 7, "user": {"plan": "pro"}},
    ]
    body = {"app": "web", "env": "prod", "release": "1", "sessionId": "s", "sentAt": 1_600_000_000_000, "events": events}
    assert client().post("/api/telemetry/batch", json=body, headers=KEY).get_json()["saved"] == 2
    foreign = {"_id": ObjectId(), "app": "web", "type": "event", "name": "foreign", **dict.fromkeys(("ts", "createdAt", "updatedAt"), TS)}
    collection.insert_one({**foreign, "props": {"oid": ObjectId(), "d": Decimal128("1.5"), "b": Binary(b"x"), "l": Int64(5)}})
    return {document["_id"]: document for document in collection.find()}


def page(client, **layout):
    return json.dumps(client().get("/api/telemetry/events", headers=ADMIN).get_json(), **layout).encode()


def exported(collection, mode, between, head=b"", tail=b"", **layout):
    return head + between.join(json_util.dumps(document, json_options=mode, **layout).encode() for document in collection.find()) + tail


RELAXED, CANONICAL = json_util.RELAXED_JSON_OPTIONS, json_util.CANONICAL_JSON_OPTIONS
GIVEN_OUT = {
    "the answer on one line": lambda client, _: page(client),
    "the answer over many lines": lambda client, _: page(client, indent=2),
    "several answers": lambda client, _: page(client) + b"\n" + page(client) + b"\n",
    "several answers over many lines": lambda client, _: page(client, indent=2) + b"\n" + page(client, indent=2),
    "the events of an answer, one a line": lambda client, _: b"".join(
        json.dumps(event).encode() + b"\n" for event in json.loads(page(client))["events"]
    ),
    "a list of the events of an answer": lambda client, _: json.dumps(json.loads(page(client))["events"], indent=1).encode(),
    "mongoexport": lambda _, collection: exported(collection, RELAXED, b"\n"),
    "mongoexport, canonical": lambda _, collection: exported(collection, CANONICAL, b"\n"),
    "mongoexport --jsonArray": lambda _, collection: exported(collection, RELAXED, b",", b"[", b"]\n"),
    "mongoexport --jsonArray --pretty": lambda _, collection: exported(collection, CANONICAL, b",\n", b"[", b"]\n", indent=1),
    "mongoexport --pretty": lambda _, collection: exported(collection, RELAXED, b"\n", indent=2),
}


@pytest.mark.parametrize("make", GIVEN_OUT.values(), ids=GIVEN_OUT)
def test_events_that_a_server_gave_out_are_recognized_and_can_be_restored_with_their_ids(run, tmp_path, client, collection, stored, make):
    path = file_of(tmp_path, make(client, collection))
    shown = page(client)
    code, output = run(path)
    assert (code, collection.count_documents({})) == (0, 3) and "0 events imported" in output, output
    collection.delete_many({})
    code, output = run(path)
    assert code == 0 and "3 events imported" in output, output
    assert {document["_id"] for document in collection.find()} == stored.keys()
    assert page(client) == shown
    ours = [document["_id"] for document in stored.values() if document["name"] != "foreign"]
    assert {id_: collection.find_one({"_id": id_}) for id_ in ours} == {id_: stored[id_] for id_ in ours}


def test_documents_of_another_program_without_our_times_are_recognized(run, tmp_path, client, collection):
    plain = {"app": "web", "type": "event", "name": "a", "ts": TS, "props": {}}
    collection.insert_many([{**plain, "_id": id_} for id_ in (ObjectId(), 5, "text")])
    path = file_of(tmp_path, page(client))
    assert "0 events imported, 3 already stored" in run(path)[1]
    collection.delete_many({})
    assert "3 events imported" in run(path)[1]
    assert {type(document["_id"]) for document in collection.find()} == {ObjectId, int, str}


def test_an_id_that_an_sdk_sends_is_ignored(run, tmp_path, collection):
    assert "1 event imported" in run(file_of(tmp_path, sdk_line(id="mine", createdAt="2025-01-01T00:00:00Z")))[1]
    assert collection.find_one()["_id"] != "mine"


def test_a_row_of_a_rejected_file_is_imported_as_the_line_in_it(run, tmp_path, mongo_uri):
    rows = [{"line": line("a").decode().rstrip(), "reason": "MongoDB: no"}, {"line": "nonsense", "reason": "no JSON"}]
    path = file_of(tmp_path, b"".join(json.dumps(row).encode() + b"\n" for row in rows), "events-1.jsonl.rejected")
    code, output = run(path)
    assert code == 1 and "1 event imported, 0 already stored, 1 line rejected" in output
    assert stored_names(mongo_uri) == ["a"]


def test_a_batch_of_an_sdk_is_imported_as_its_events(run, tmp_path, collection):
    batch = {"app": "web", "userId": "u1", "events": [{"type": "event", "name": "a"}, {"type": "event", "name": "b", "userId": "u2"}]}
    path = file_of(tmp_path, json.dumps(batch).encode())
    assert "2 events imported" in run(path)[1] and "0 events imported, 2 already stored" in run(path)[1]
    assert {document["name"]: document["userId"] for document in collection.find()} == {"a": "u1", "b": "u2"}


# Forms of files


def test_a_byte_order_mark_is_not_part_of_the_first_line(run, tmp_path, mongo_uri):
    assert run(file_of(tmp_path, b"\xef\xbb\xbf" + line("a") + line("b")))[0] == 0
    assert run(file_of(tmp_path, b"\xef\xbb\xbf[" + sdk_line(name="c") + b"]", "array.json"))[0] == 0
    assert sorted(stored_names(mongo_uri)) == ["a", "b", "c"]


def test_a_compressed_file_is_the_same_file(run, tmp_path, mongo_uri):
    path = file_of(tmp_path, sdk_line() + sdk_line(name="b"))
    packed = file_of(tmp_path, gzip.compress(path.read_bytes()), "given.jsonl.gz")
    assert "2 events imported" in run(path)[1]
    assert "0 events imported, 2 already stored" in run(packed)[1]


def test_of_a_compressed_file_that_ends_early_the_command_imports_what_it_can_read_and_reports_the_end(run, tmp_path):
    text = b"".join(sdk_line(name=f"n{number}", props={"noise": os.urandom(50).hex()}) for number in range(2000))
    code, output = run(file_of(tmp_path, gzip.compress(text)[:-50_000], "torn.jsonl.gz"))
    assert code == 1 and "not finished: the compressed data" in output.replace("[Errno 0] ", "")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_standard_input_is_imported_like_a_file(run, tmp_path, mongo_uri, pack):
    text = b"".join(sdk_line(name=f"n{number}") for number in range(3000)) + b"nonsense\n"
    code, output = run("-", stdin=pack(text))
    assert code == 1 and "3,000 events imported" in output
    assert "0 events imported, 3,000 already stored" in run("-", stdin=pack(text))[1]
    assert "1 event imported" in run("-", stdin=pack(sdk_line()))[1], "another stream is another file"
    (row,) = (tmp_path / "data" / "-.rejected").read_text().splitlines()
    assert json.loads(row)["line"] == "nonsense"


def test_a_file_whose_name_is_not_utf_8_is_imported(tmp_path, mongo_uri):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(line("a") + b"nonsense\n")
    app = Switchyard("flask", MONGO_URI=mongo_uri)
    command = [sys.executable, "-m", "flask", "telemetry", "import", path]
    for expected in (b"1 event imported, 0 already stored", b"0 events imported, 1 already stored"):
        done = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (1, False), done.stderr
        assert expected in done.stdout
    assert os.path.exists(path + b".rejected")
    app.close()


def test_the_same_line_without_an_event_id_is_another_event_in_another_file(run, tmp_path, mongo_uri):
    one, two = file_of(tmp_path, sdk_line(), "one.jsonl"), file_of(tmp_path, sdk_line(), "two.jsonl")
    assert "2 events imported, 0 already stored" in run(one, two)[1]
    assert "0 events imported, 2 already stored" in run(two, one)[1]
    assert stored_names(mongo_uri) == ["a", "a"]


def test_the_same_name_in_another_folder_is_another_file(run, tmp_path, mongo_uri):
    folders = [tmp_path / name for name in ("host1", "host2")]
    for folder in folders:
        folder.mkdir()
    assert "2 events imported" in run(*[file_of(folder, sdk_line()) for folder in folders])[1]


# Files that were cut off, and pipes


@pytest.mark.parametrize("through_pipe", [False, True], ids=["file", "standard input"])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda packed: packed[:-4], "the compressed data is cut off"),
        (lambda packed: packed + b"garbage", "the compressed data is damaged, or something else follows it"),
        (lambda packed: packed[:-8] + bytes(8), "the compressed data is damaged"),
    ],
    ids=["cut off", "garbage at the end", "another checksum"],
)
def test_of_a_damaged_compressed_file_all_that_can_be_read_is_imported_and_so_are_the_other_files(
    run, tmp_path, mongo_uri, spoil, expected, through_pipe
):
    packed = spoil(gzip.compress(b"".join(sdk_line(name=f"n{number}") for number in range(1200))))
    path, other = file_of(tmp_path, packed, "torn.jsonl.gz"), file_of(tmp_path, sdk_line(name="other"), "other.jsonl")
    code, output = run("-" if through_pipe else path, other, stdin=packed)
    assert (code, len(stored_names(mongo_uri))) == (1, 1201) and "1,201 events imported" in output
    assert f"not finished: {expected}" in output and "Another run on this file does not help" in output
    assert "continue from here" not in output and "Errno" not in output


def test_compressed_data_that_is_damaged_in_the_middle_is_named(run, tmp_path):
    packed = bytearray(gzip.compress(b"".join(sdk_line(name=os.urandom(40).hex()) for _ in range(5000))))
    packed[len(packed) // 2 : len(packed) // 2 + 200] = bytes(range(200))
    code, output = run(file_of(tmp_path, packed, "torn.jsonl.gz"))
    assert code == 1 and "not finished: the compressed data is damaged" in output


@pytest.mark.parametrize("cut", [b"[%s", b"[%s,", b"[\n%s,\n ", b"[%s,\n%s,"], ids=["element", "comma", "lines", "two"])
def test_an_array_that_is_cut_off_after_a_whole_element_is_named(run, tmp_path, mongo_uri, cut):
    text = cut.replace(b"%s", sdk_line().rstrip())
    code, output = run(file_of(tmp_path, text, "array.json"))
    assert (code, len(stored_names(mongo_uri))) == (1, cut.count(b"%s"))
    assert "not finished: the JSON is cut off: " in output and "array.json" in output


@pytest.mark.parametrize("layout", [{}, {"indent": 2}], ids=["one line", "many lines"])
@pytest.mark.parametrize("more", [0, 1, 30], ids=["after an event", "after a comma", "within an event"])
def test_of_a_page_that_is_cut_off_the_whole_events_are_imported_and_the_rest_is_rejected(
    run, tmp_path, client, collection, stored, layout, more
):
    text = page(client, **layout)
    events = json.loads(text)["events"]
    ours = [event for event in events if event["name"] != "foreign"]
    text, whole = (json.dumps({"events": listed, "nextCursor": None}, **layout).encode() for listed in ([*ours, *events], ours))
    end = whole.rindex(b"}", 0, whole.rindex(b"]")) + 1
    assert text.startswith(whole[:end])
    collection.delete_many({})
    path = file_of(tmp_path, text[: end + more], "page.json")
    code, output = run(path)
    assert (code, sorted(document["_id"] for document in collection.find())) == (1, sorted(event["id"] for event in ours)), output
    (row,) = (tmp_path / "page.json.rejected").read_text().splitlines()
    assert "2 whole events were taken" in json.loads(row)["reason"] and json.loads(row)["line"].startswith("{")


def test_a_batch_that_is_cut_off_is_rejected_whole_since_fields_for_its_events_may_be_missing(run, tmp_path, mongo_uri):
    code, output = run(file_of(tmp_path, b'{"app": "web", "events": [{"type": "event", "name": "a"},'))
    assert code == 1 and "0 events imported" in output and stored_names(mongo_uri) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_named_pipe_is_read_like_standard_input(run, tmp_path, mongo_uri, pack):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = file_of(tmp_path, pack(b"".join(sdk_line(name=f"n{number}") for number in range(3000)) + b"nonsense\n"))
    for expected in ("3,000 events imported, 0 already", "0 events imported, 3,000 already"):
        writer = subprocess.Popen(["sh", "-c", 'cat "$1" > "$2"', "sh", source, pipe])
        code, output = run(pipe)
        assert writer.wait(10) == 0 and code == 1 and expected in output, output
    assert (tmp_path / "data" / "pipe.rejected").exists()


# Rejected lines and dry runs


@pytest.mark.parametrize("lines", [[line("a")], [line("a"), b"nonsense"]], ids=["all usable", "one is not"])
def test_the_command_reports_that_an_imported_rejected_file_may_be_deleted(run, tmp_path, mongo_uri, lines):
    rows = [{"line": text.decode().rstrip(), "reason": "MongoDB: no"} for text in lines]
    path = file_of(tmp_path, b"".join(json.dumps(row).encode() + b"\n" for row in rows), "events-1.jsonl.rejected")
    assert "may be deleted" not in run("--dry-run", path)[1]
    code, output = run(path)
    kept = f"its lines that are not events are in {path}.rejected"
    assert f"{path} may be deleted: {kept if code else 'all its lines are in MongoDB'}." in output
    assert code == len(lines) - 1


def test_the_command_reports_of_no_other_file_that_it_may_be_deleted(run, tmp_path, mongo_uri):
    assert "may be deleted" not in run(file_of(tmp_path, line("a")))[1]


def test_rejected_lines_can_be_kept_in_another_folder(run, tmp_path, mongo_uri):
    medium, place = tmp_path / "medium", tmp_path / "place"
    medium.mkdir(), place.mkdir()
    lines = [line(f"e{number}") for number in range(6000)]
    lines[1999] = b"nonsense\n"
    path = file_of(medium, b"".join(lines))
    path.with_name(path.name + ".rejected").mkdir()  # not even root can write there
    code, output = run(path)
    assert code == 1 and "name another place with --rejected-dir" in output
    code, output = run("--rejected-dir", place, path)
    assert code == 1 and "1 line rejected" in output
    assert len(stored_names(mongo_uri)) == 5999
    assert [file.name for file in place.iterdir()] == ["given.jsonl.rejected"]


@pytest.mark.parametrize("uri", [None, "away"])
def test_a_dry_run_needs_no_mongodb_and_reports_that_it_did_not_compare(run, tmp_path, uri):
    uri = uri and f"mongodb://127.0.0.1:{free_port()}/x"
    path = file_of(tmp_path, line("a") + sdk_line() + b"nonsense\n")
    code, output = run("--dry-run", path, mongo_uri=uri, mongo_timeout_ms=200)
    assert code == 1
    assert "2 events to import, not compared with MongoDB, which is not available, 1 line to reject" in output
    assert not path.with_name(path.name + ".rejected").exists()


# Interruptions


@pytest.fixture
def interrupted(run, tmp_path, monkeypatch, collection):
    """A file of 4000 events, the import of which was interrupted after some chunks."""
    path = file_of(tmp_path, b"".join(line(f"e{number:04}") for number in range(4000)))
    from app.telemetry.importing.importer import Importer

    settle = Importer._settle

    def until_the_fourth(self, work):
        if work.chunk.end > 3.5 * LINES_A_CHUNK * len(line("e0000")):
            raise KeyboardInterrupt
        return settle(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(Importer, "_settle", until_the_fourth)
        assert run("--concurrency", 1, path)[0] == 130
    assert 3 * LINES_A_CHUNK <= collection.count_documents({}) < 4000
    return path


def test_an_interrupted_import_continues_and_its_numbers_are_those_of_this_run(run, interrupted, collection):
    code, output = run(interrupted)
    assert code == 0 and "Continuing" in output
    assert collection.count_documents({}) == 4000
    imported, known = re.search(r"file: ([\d,]+) events imported, ([\d,]+) already", output).groups()
    assert int(imported.replace(",", "")) + int(known.replace(",", "")) == 4000 - 3 * LINES_A_CHUNK


@pytest.mark.parametrize("changed", [0, 700, 1499])
def test_a_file_that_was_rewritten_is_imported_from_its_beginning(run, interrupted, collection, changed):
    lines = interrupted.read_bytes().splitlines(keepends=True)
    lines[changed] = line("new00")[:-1].replace(b"new00", b"newxx") + b"\n"
    with open(interrupted, "rb+") as file:  # the same inode
        file.write(b"".join(lines))
    code, output = run(interrupted)
    assert code == 0 and "has changed since the import was interrupted" in output
    assert collection.find_one({"name": "newxx"}) is not None
    assert collection.count_documents({}) >= 4000


def test_after_the_database_was_dropped_the_whole_file_is_imported(run, interrupted, collection):
    collection.database.client.drop_database(collection.database.name)
    code, output = run(interrupted)
    assert (code, collection.count_documents({})) == (0, 4000), output
    assert "MongoDB has lost events that were imported" in output and "4,000 events imported, 0 already stored" in output


def test_where_the_last_imported_events_are_missing_the_whole_file_is_imported(run, interrupted, collection):
    collection.delete_many({"name": {"$gte": "e0500"}})
    assert run(interrupted)[0] == 0
    assert collection.count_documents({}) == 4000


def test_an_event_is_counted_once_although_the_import_was_interrupted(run, interrupted, client):
    run(interrupted)
    query = {"app": "web", "from": NOW - 60_000, "to": NOW + 60_000}
    counted = client().get("/api/telemetry/stats", query_string=query, headers=ADMIN).get_json()["totals"]["count"]
    assert 4000 - LINES_A_CHUNK <= counted <= 4000


def test_a_file_whose_name_is_not_utf_8_can_be_verified_and_repaired(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(line("a") + b"nonsense\n")
    app = Switchyard("flask")
    for words, expected in ((["verify"], (1, b":2: ")), (["repair"], (0, b"1 line moved"))):
        command = [sys.executable, "-m", "flask", "telemetry", "spool", *words, path]
        done = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, check=False)
        assert (done.returncode, expected[1] in done.stdout) == (expected[0], True), done
    app.close()
