"""MongoDB goes and comes back under load: what was answered as saved is in it exactly once when the spool is empty."""

from tests.integration.telemetry_clients import SETTINGS, Clients, assert_kept, health, wait_until, wait_until_drained


def test_kill_9_of_mongod_and_its_return_lose_nothing_and_double_nothing(switchyard, own_mongo):
    uri = own_mongo.new_database()
    app = switchyard(MONGO_URI=uri, **SETTINGS)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("mongo", 0) > 20)
        own_mongo.kill()
        clients.until(lambda: clients.answers.get("spool", 0) > 20)
        assert health(app.url)["spool"]["state"] == "degraded"
        own_mongo.start()
        clients.until(lambda: health(app.url)["spool"]["drained"] > 0)
    wait_until_drained(app)
    assert_kept(clients, uri)
    assert clients.slowest_s < 5
    wait_until(lambda: health(app.url)["spool"]["state"] == "up")


def test_what_an_embedded_server_gathered_moves_to_mongo_once_there_is_one(switchyard, mongo_uri):
    app = switchyard(SPOOL_SEGMENT_BYTES=20_000, **SETTINGS)
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("spool", 0) > 60)
    app.kill()
    app.settings["MONGO_URI"] = mongo_uri
    app.start()
    wait_until_drained(app)
    assert_kept(clients, mongo_uri)
    assert health(app.url)["spool"]["rejected"] <= 1, "at most the line that the kill cut through"
