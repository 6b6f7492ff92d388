"""`flask telemetry import`: all that comes out of here goes in again, and an interruption is only believed where it still holds."""

import gzip
import json
import os
import re
import subprocess
import sys
from datetime import datetime

import pymongo
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, json_util

from app.telemetry.importer import LINES_A_CHUNK
from tests.apps import NOW, WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import COLLECTION, stored_names
from tests.servers.ports import free_port
from tests.servers.switchyard import Switchyard
from tests.unit.telemetry.test_spool_reading import line

TS = datetime(2025, 1, 2)
ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}


@pytest.fixture
def collection(mongo_uri):
    with pymongo.MongoClient(mongo_uri) as client:
        yield client.get_default_database()[COLLECTION]


@pytest.fixture
def run(tmp_path, mongo_uri):
    def run(*words, stdin=None, **settings):
        app = make_app(tmp_path, **{"mongo_uri": mongo_uri, **settings})
        result = app.test_cli_runner().invoke(args=["telemetry", "import", *map(str, words)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def client(tmp_path, mongo_uri):
    """Makes one with a connection of its own: the commands close those before them."""
    return lambda: make_app(tmp_path, mongo_uri=mongo_uri).test_client()


def natural(**fields):
    return json.dumps({"app": "web", "type": "event", "name": "a", **fields}).encode() + b"\n"


def file_of(tmp_path, content, name="given.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


# What we gave out


@pytest.fixture
def stored(client, collection):
    """Documents of every shape that we store, one of another program among them."""
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
def test_what_was_given_out_is_known_again_and_can_be_put_back_under_its_ids(run, tmp_path, client, collection, stored, make):
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


def test_what_was_given_out_of_another_program_s_documents_is_known_again_without_our_times(run, tmp_path, client, collection):
    plain = {"app": "web", "type": "event", "name": "a", "ts": TS, "props": {}}
    collection.insert_many([{**plain, "_id": id_} for id_ in (ObjectId(), 5, "text")])
    path = file_of(tmp_path, page(client))
    assert "0 events imported, 3 there already" in run(path)[1]
    collection.delete_many({})
    assert "3 events imported" in run(path)[1]
    assert {type(document["_id"]) for document in collection.find()} == {ObjectId, int, str}


def test_an_event_of_an_sdk_may_have_an_id_of_its_own_that_means_nothing_here(run, tmp_path, collection):
    assert "1 event imported" in run(file_of(tmp_path, natural(id="mine", createdAt="2025-01-01T00:00:00Z")))[1]
    assert collection.find_one()["_id"] != "mine"


def test_a_row_of_a_rejected_file_is_the_line_that_it_keeps(run, tmp_path, mongo_uri):
    rows = [{"line": line("a").decode().rstrip(), "reason": "MongoDB: no"}, {"line": "nonsense", "reason": "no JSON"}]
    path = file_of(tmp_path, b"".join(json.dumps(row).encode() + b"\n" for row in rows), "events-1.jsonl.rejected")
    code, output = run(path)
    assert code == 1 and "1 event imported, 0 there already, 1 line rejected" in output
    assert stored_names(mongo_uri) == ["a"]


def test_a_batch_as_an_sdk_sends_it_is_its_events(run, tmp_path, collection):
    batch = {"app": "web", "userId": "u1", "events": [{"type": "event", "name": "a"}, {"type": "event", "name": "b", "userId": "u2"}]}
    path = file_of(tmp_path, json.dumps(batch).encode())
    assert "2 events imported" in run(path)[1] and "0 events imported, 2 there already" in run(path)[1]
    assert {document["name"]: document["userId"] for document in collection.find()} == {"a": "u1", "b": "u2"}


# What a file may be


def test_a_byte_order_mark_is_no_part_of_the_first_line(run, tmp_path, mongo_uri):
    assert run(file_of(tmp_path, b"\xef\xbb\xbf" + line("a") + line("b")))[0] == 0
    assert run(file_of(tmp_path, b"\xef\xbb\xbf[" + natural(name="c") + b"]", "array.json"))[0] == 0
    assert sorted(stored_names(mongo_uri)) == ["a", "b", "c"]


def test_a_compressed_file_is_the_same_file(run, tmp_path, mongo_uri):
    path = file_of(tmp_path, natural() + natural(name="b"))
    packed = file_of(tmp_path, gzip.compress(path.read_bytes()), "given.jsonl.gz")
    assert "2 events imported" in run(path)[1]
    assert "0 events imported, 2 there already" in run(packed)[1]


def test_a_compressed_file_that_ends_early_gives_what_can_be_read_and_says_so(run, tmp_path):
    text = b"".join(natural(name=f"n{number}", props={"noise": os.urandom(50).hex()}) for number in range(2000))
    code, output = run(file_of(tmp_path, gzip.compress(text)[:-50_000], "torn.jsonl.gz"))
    assert code == 1 and "not finished: the compressed data" in output.replace("[Errno 0] ", "")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_standard_input_is_a_file_too(run, tmp_path, mongo_uri, pack):
    text = b"".join(natural(name=f"n{number}") for number in range(3000)) + b"nonsense\n"
    code, output = run("-", stdin=pack(text))
    assert code == 1 and "3,000 events imported" in output
    assert "0 events imported, 3,000 there already" in run("-", stdin=pack(text))[1]
    assert "1 event imported" in run("-", stdin=pack(natural()))[1], "another stream is another file"
    (row,) = (tmp_path / "data" / "-.rejected").read_text().splitlines()
    assert json.loads(row)["line"] == "nonsense"


def test_a_name_that_is_no_utf_8_is_a_file_like_any_other(tmp_path, mongo_uri):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(line("a") + b"nonsense\n")
    app = Switchyard("flask", MONGO_URI=mongo_uri)
    command = [sys.executable, "-m", "flask", "telemetry", "import", path]
    for expected in (b"1 event imported, 0 there already", b"0 events imported, 1 there already"):
        done = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (1, False), done.stderr
        assert expected in done.stdout
    assert os.path.exists(path + b".rejected")
    app.close()


def test_lines_without_an_identity_are_other_events_in_another_file(run, tmp_path, mongo_uri):
    one, two = file_of(tmp_path, natural(), "one.jsonl"), file_of(tmp_path, natural(), "two.jsonl")
    assert "2 events imported, 0 there already" in run(one, two)[1]
    assert "0 events imported, 2 there already" in run(two, one)[1]
    assert stored_names(mongo_uri) == ["a", "a"]


def test_the_same_name_in_another_folder_is_another_file(run, tmp_path, mongo_uri):
    folders = [tmp_path / name for name in ("host1", "host2")]
    for folder in folders:
        folder.mkdir()
    assert "2 events imported" in run(*[file_of(folder, natural()) for folder in folders])[1]


# Rejected lines and rehearsals


def test_a_place_for_rejected_lines_can_be_named(run, tmp_path, mongo_uri):
    medium, place = tmp_path / "medium", tmp_path / "place"
    medium.mkdir(), place.mkdir()
    lines = [line(f"e{number}") for number in range(6000)]
    lines[1999] = b"nonsense\n"
    path = file_of(medium, b"".join(lines))
    path.with_name(path.name + ".rejected").mkdir()  # nobody can write there, root neither
    code, output = run(path)
    assert code == 1 and "name another place with --rejected-dir" in output
    code, output = run("--rejected-dir", place, path)
    assert code == 1 and "1 line rejected" in output
    assert len(stored_names(mongo_uri)) == 5999
    assert [file.name for file in place.iterdir()] == ["given.jsonl.rejected"]


@pytest.mark.parametrize("uri", [None, "away"])
def test_a_rehearsal_needs_no_mongo_and_says_that_it_did_not_compare(run, tmp_path, uri):
    uri = uri and f"mongodb://127.0.0.1:{free_port()}/x"
    path = file_of(tmp_path, line("a") + natural() + b"nonsense\n")
    code, output = run("--dry-run", path, mongo_uri=uri, mongo_timeout_ms=200)
    assert code == 1
    assert "2 events to import, not compared with MongoDB, which is not there, 1 line no events" in output
    assert not path.with_name(path.name + ".rejected").exists()


# Interruptions


@pytest.fixture
def interrupted(run, tmp_path, monkeypatch, collection):
    """A file of 4000 whose import was interrupted after some chunks."""
    path = file_of(tmp_path, b"".join(line(f"e{number:04}") for number in range(4000)))
    from app.telemetry.importer import Importer

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


def test_one_that_was_interrupted_goes_on_and_the_numbers_are_those_of_this_run(run, interrupted, collection):
    code, output = run(interrupted)
    assert code == 0 and "Going on" in output
    assert collection.count_documents({}) == 4000
    imported, known = re.search(r"file: ([\d,]+) events imported, ([\d,]+) there", output).groups()
    assert int(imported.replace(",", "")) + int(known.replace(",", "")) == 4000 - 3 * LINES_A_CHUNK


@pytest.mark.parametrize("changed", [0, 700, 1499])
def test_a_file_that_was_written_anew_under_its_name_is_imported_from_its_beginning(run, interrupted, collection, changed):
    lines = interrupted.read_bytes().splitlines(keepends=True)
    lines[changed] = line("new00")[:-1].replace(b"new00", b"newxx") + b"\n"
    with open(interrupted, "rb+") as file:  # the same inode
        file.write(b"".join(lines))
    code, output = run(interrupted)
    assert code == 0 and "another file than the one that was interrupted" in output
    assert collection.find_one({"name": "newxx"}) is not None
    assert collection.count_documents({}) >= 4000


def test_a_database_that_was_dropped_gets_all_of_it(run, interrupted, collection):
    collection.database.client.drop_database(collection.database.name)
    code, output = run(interrupted)
    assert (code, collection.count_documents({})) == (0, 4000), output
    assert "MongoDB has lost what was imported" in output and "4,000 events imported, 0 there already" in output


def test_a_collection_that_lacks_what_was_imported_last_gets_all_of_it(run, interrupted, collection):
    collection.delete_many({"name": {"$gte": "e0500"}})
    assert run(interrupted)[0] == 0
    assert collection.count_documents({}) == 4000


def test_an_event_that_is_counted_is_counted_once_over_an_interruption(run, interrupted, client):
    run(interrupted)
    query = {"app": "web", "from": NOW - 60_000, "to": NOW + 60_000}
    counted = client().get("/api/telemetry/stats", query_string=query, headers=ADMIN).get_json()["totals"]["count"]
    assert 4000 - LINES_A_CHUNK <= counted <= 4000


def test_a_name_that_is_no_utf_8_can_be_verified_and_repaired(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(line("a") + b"nonsense\n")
    app = Switchyard("flask")
    for words, expected in ((["verify"], (1, b":2: ")), (["repair"], (0, b"1 line moved"))):
        command = [sys.executable, "-m", "flask", "telemetry", "spool", *words, path]
        done = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, check=False)
        assert (done.returncode, expected[1] in done.stdout) == (expected[0], True), done
    app.close()
