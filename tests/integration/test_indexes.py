"""The indexes in a real MongoDB: applied, changed by a setting, taken back, and asked after."""

import threading
import time

import pymongo
import pytest
import requests

from app.settings import Settings
from app.storage import migrations
from app.storage.migrations import IndexWatch
from tests.apps import SECRET, bearer, make_app, make_settings
from tests.servers.switchyard import Switchyard

ALL = [migration.name for migration in migrations.migrations()]
SHORTER, LONGER = (Settings(_env_file=None, telemetry_ttl_days=days) for days in (1, 2))
WITH_TTL = [migration.name for migration in migrations.migrations() if migration.fingerprint(SHORTER) != migration.fingerprint(LONGER)]
TTL = "0001_telemetry_ttl"
DAY_S = 86_400


@pytest.fixture
def db(mongo_uri):
    with pymongo.MongoClient(mongo_uri, serverSelectionTimeoutMS=5000) as client:
        yield client.get_default_database()


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def states(db, settings):
    return [state for _, state in migrations.status(db, settings)]


def ttl_of(db):
    return db.telemetry_events.index_information().get("createdAt_ttl", {}).get("expireAfterSeconds")


def test_everything_is_pending_in_an_empty_database_and_applied_after_migrating(db, settings):
    assert states(db, settings) == ["pending"] * len(ALL)
    assert migrations.migrate(db, settings) == ALL
    assert states(db, settings) == ["applied"] * len(ALL)
    assert {"createdAt_ttl", "app_type_ts", "app_name_ts", "ts_id"} <= db.telemetry_events.index_information().keys()
    assert db.flags.index_information()["key_unique"]["unique"] is True
    assert ttl_of(db) == 90 * DAY_S


def test_migrating_again_does_nothing(db, settings):
    migrations.migrate(db, settings)
    before = db[migrations.RECORD].find_one({"_id": TTL})
    assert migrations.migrate(db, settings) == []
    assert db[migrations.RECORD].find_one({"_id": TTL}) == before


def test_another_ttl_in_the_settings_is_a_change_that_migrating_applies(db, settings, tmp_path):
    migrations.migrate(db, settings)
    shorter = make_settings(tmp_path, telemetry_ttl_days=30)
    assert states(db, shorter) == ["changed" if name in WITH_TTL else "applied" for name in ALL]
    assert ttl_of(db) == 90 * DAY_S
    assert migrations.migrate(db, shorter) == WITH_TTL
    assert ttl_of(db) == 30 * DAY_S
    assert states(db, shorter) == ["applied"] * len(ALL)


def test_a_ttl_of_0_keeps_events_for_ever(db, settings, tmp_path):
    migrations.migrate(db, settings)
    for_ever = make_settings(tmp_path, telemetry_ttl_days=0)
    assert migrations.migrate(db, for_ever) == WITH_TTL
    assert ttl_of(db) is None
    assert states(db, for_ever) == ["applied"] * len(ALL)
    assert migrations.migrate(db, settings) == WITH_TTL
    assert ttl_of(db) == 90 * DAY_S


def test_rolling_back_takes_the_last_one_first_and_then_there_is_nothing(db, settings):
    migrations.migrate(db, settings)
    assert [migrations.rollback(db, settings) for _ in [*ALL, None]] == [*reversed(ALL), None]
    assert states(db, settings) == ["pending"] * len(ALL)
    for name in db.list_collection_names():
        assert db[name].index_information().keys() <= {"_id_"}


def test_what_was_changed_by_a_setting_can_be_taken_back_too(db, settings, tmp_path):
    migrations.migrate(db, settings)
    other = make_settings(tmp_path, telemetry_ttl_days=1)
    assert [migrations.rollback(db, other) for _ in ALL] == ALL[::-1]
    assert ttl_of(db) is None


def test_an_index_that_somebody_dropped_by_hand_is_no_obstacle(db, settings):
    migrations.migrate(db, settings)
    db.telemetry_events.drop_indexes()
    db.flags.drop()
    assert [migrations.rollback(db, settings) for _ in ALL] == ALL[::-1]


def test_an_interrupted_migration_is_done_again(db, settings):
    migrations.migrate(db, settings)
    db[migrations.RECORD].delete_many({})
    assert migrations.migrate(db, settings) == ALL
    assert ttl_of(db) == 90 * DAY_S


def test_a_rollback_undone_is_the_same_as_before(db, settings):
    migrations.migrate(db, settings)
    before = db.telemetry_events.index_information()
    for _ in ALL:
        migrations.rollback(db, settings)
    migrations.migrate(db, settings)
    assert db.telemetry_events.index_information() == before


def test_several_who_migrate_at_once_do_no_harm(mongo_uri, db, settings, tmp_path):
    migrations.migrate(db, settings)
    other, problems = make_settings(tmp_path, telemetry_ttl_days=7), []

    def migrate():
        try:
            with pymongo.MongoClient(mongo_uri) as client:
                migrations.migrate(client.get_default_database(), other)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            problems.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert ttl_of(db) == 7 * DAY_S
    assert states(db, other) == ["applied"] * len(ALL)


def test_every_migration_says_why_it_is_there():
    for migration in migrations.migrations():
        assert migration.why.endswith(".")
        assert callable(migration.module.up) and callable(migration.module.down)


# A boot with pending ones.


def test_the_watch_says_what_is_pending_until_it_is_applied(db, settings):
    watch = IndexWatch(db, settings)
    assert watch.verdict() == {}
    watch.look()
    assert watch.verdict() == {"state": "degraded", "pendingIndexes": ALL}
    migrations.migrate(db, settings)
    watch.look()
    assert watch.verdict() == {}


def test_the_watch_leaves_it_to_others_to_say_that_mongo_is_away(settings):
    with pymongo.MongoClient("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=50) as client:
        watch = IndexWatch(client.nothing, settings)
        watch.look()
        assert watch.verdict() == {}


def test_a_boot_with_pending_ones_says_so_in_the_log_and_in_healthz(switchyard, mongo_uri):
    app = switchyard(APP_ENV="production", JWT_SECRET=SECRET, MONGO_URI=mongo_uri)
    deadline = time.monotonic() + 10
    while '"indexes_pending"' not in app.log:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.1)  # an answer of /healthz is kept for a second
    health = requests.get(f"{app.url}/healthz", headers=bearer("root", "admin"), timeout=5).json()
    assert health["status"] == "degraded"
    assert health["dependencies"]["mongo"]["pendingIndexes"] == ALL


# The commands.


@pytest.fixture
def run(tmp_path, mongo_uri):
    """Run `flask indexes …` in this process and return (exit code, output)."""

    def run(command, **settings):
        app = make_app(tmp_path, **{"mongo_uri": mongo_uri, **settings})
        result = app.test_cli_runner().invoke(args=["indexes", command])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_the_commands_show_apply_and_take_back(run):
    code, output = run("status")
    assert (code, [line.split()[:2] for line in output.splitlines()]) == (1, [["pending", name] for name in ALL])
    assert "MongoDB deletes events" in output
    assert run("migrate") == (0, "".join(f"applied   {name}\n" for name in ALL))
    code, output = run("status")
    assert (code, [line.split()[0] for line in output.splitlines()]) == (0, ["applied"] * len(ALL))
    assert run("migrate") == (0, "nothing to do\n")
    assert run("rollback") == (0, f"taken back  {ALL[-1]}\n")


def test_a_changed_setting_is_shown_and_applied(run):
    run("migrate")
    code, output = run("status", telemetry_ttl_days=5)
    assert code == 1
    assert [line.split()[1] for line in output.splitlines() if line.startswith("changed ")] == WITH_TTL
    assert run("migrate", telemetry_ttl_days=5) == (0, "".join(f"applied   {name}\n" for name in WITH_TTL))


def test_without_mongo_in_the_settings_the_commands_say_so(run):
    assert run("status", mongo_uri=None) == (1, "Error: there is no MONGO_URI; without MongoDB there are no indexes to make\n")


def test_a_mongo_that_is_away_is_one_sentence_and_soon(run):
    started = time.monotonic()
    refused = run("migrate", mongo_uri="mongodb://user:hunter2@127.0.0.1:9/shop", mongo_timeout_ms=300)
    assert time.monotonic() - started < 5
    assert refused == (1, "Error: MongoDB does not answer at 127.0.0.1:9/shop; is it running?\n")


def test_a_login_in_the_uri_works_and_a_wrong_one_is_one_sentence(run, mongo_server_with_login):
    assert run("migrate", mongo_uri=mongo_server_with_login.new_database())[0] == 0
    user, _ = mongo_server_with_login.login
    code, output = run("migrate", mongo_uri=mongo_server_with_login.uri_as(user, "guessed"))
    assert code == 1
    assert output.startswith("Error: MongoDB refuses: ") and len(output.splitlines()) == 1
    assert "guessed" not in output


def test_as_a_command_it_prints_nothing_else(mongo_uri):
    app = Switchyard("flask", MONGO_URI=mongo_uri, APP_ENV="production", JWT_SECRET=SECRET)
    try:
        done = app.flask("indexes", "migrate")
        assert (done.returncode, done.stdout, done.stderr) == (0, "".join(f"applied   {name}\n" for name in ALL), "")
    finally:
        app.close()


# Indexes of an operator.

FLAG, PLACE = "0003_flag_key", "0005_realtime_messages"


def named(index_information):
    return index_information.keys() - {"_id_"}


def test_an_index_with_the_same_keys_and_options_under_another_name_counts_as_ours(db, settings):
    db.telemetry_events.create_index([("ts", -1), ("_id", -1)], name="newest")
    db.flags.create_index("key", unique=True, name="mine")
    db.telemetry_events.create_index("createdAt", expireAfterSeconds=90 * DAY_S, name="age")
    db.realtime_messages.create_index([("topic", 1), ("epoch", 1), ("seq", 1)])
    assert migrations.migrate(db, settings) == ALL
    assert {"newest", "age", "app_type_ts"} <= named(db.telemetry_events.index_information())
    assert not {"ts_id", "createdAt_ttl"} & named(db.telemetry_events.index_information())
    assert named(db.flags.index_information()) == {"mine"}
    assert states(db, settings) == ["applied"] * len(ALL)


def test_taking_back_leaves_the_index_of_an_operator_alone(db, settings):
    db.flags.create_index("key", unique=True, name="mine")
    migrations.migrate(db, settings)
    for _ in ALL:
        migrations.rollback(db, settings)
    assert named(db.flags.index_information()) == {"mine"}


CONFLICTS = {
    "an age of another number of days": (TTL, "telemetry_events", {"keys": "createdAt", "expireAfterSeconds": 60, "name": "mine"}),
    "the field of the age without an age": (TTL, "telemetry_events", {"keys": "createdAt", "name": "mine"}),
    "our name for other keys": (PLACE, "realtime_messages", {"keys": "topic", "name": "topic_epoch_seq"}),
}


@pytest.mark.parametrize("name, collection, options", CONFLICTS.values(), ids=CONFLICTS)
def test_one_with_other_options_is_named_and_stops_no_other_migration(db, settings, name, collection, options):
    db[collection].create_index(**options)
    with pytest.raises(migrations.MigrationsPending) as pending:
        migrations.migrate(db, settings)
    assert pending.value.done == [other for other in ALL if other != name]
    sentence = str(pending.value)
    assert sentence.startswith(f"{name}: ") and "\n" not in sentence
    assert repr(options["name"]) in sentence and f"db.{collection}.dropIndex" in sentence
    assert options["name"] in db[collection].index_information()
    db[collection].drop_index(options["name"])
    assert migrations.migrate(db, settings) == [name]


def test_what_mongo_refuses_to_build_is_named_and_stops_no_other_migration(db, settings):
    db.flags.insert_many([{"_id": number, "key": "twice"} for number in range(2)])
    with pytest.raises(migrations.MigrationsPending, match=f"{FLAG}: MongoDB refuses"):
        migrations.migrate(db, settings)
    assert states(db, settings) == ["pending" if name == FLAG else "applied" for name in ALL]


def test_an_age_of_an_operator_is_a_conflict_where_events_are_to_be_kept_for_ever(db, tmp_path):
    db.telemetry_events.create_index("createdAt", expireAfterSeconds=60, name="mine")
    with pytest.raises(migrations.MigrationsPending, match="for ever"):
        migrations.migrate(db, make_settings(tmp_path, telemetry_ttl_days=0))


def test_the_command_applies_the_others_and_says_what_stands_in_the_way(run, db):
    db.telemetry_events.create_index("createdAt", name="mine")
    code, output = run("migrate")
    assert code == 1
    *applied, error = output.splitlines()
    assert applied == [f"applied   {name}" for name in ALL if name != TTL]
    assert error.startswith(f"Error: {TTL}: the index 'mine' of telemetry_events stands in the way") and "Traceback" not in output
