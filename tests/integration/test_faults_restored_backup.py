"""A MongoDB that is put back to an older state while a segment of the spool is half drained: no event is missing afterwards."""


import pymongo

from tests.apps import SECRET
from tests.unit.telemetry.spool.test_chunks import line
from tests.waiting import wait_until

COUNT = 3000


def test_what_a_restored_mongo_forgot_of_a_half_drained_segment_is_moved_again(switchyard, mongo_uri):
    settings = {"JWT_SECRET": SECRET, "MONGO_URI": mongo_uri}
    app = switchyard(**settings, SPOOL_DRAIN_EVENTS_PER_SECOND="500")
    with pymongo.MongoClient(mongo_uri) as client:
        events = client.get_default_database().telemetry_events
        segment = app.data_dir / "spool" / "events-1760000000000-1-00000000000000.jsonl"
        hidden = segment.with_name(".whole")
        hidden.write_bytes(b"".join(line(f"e{n}") for n in range(COUNT)))
        hidden.rename(segment)
        wait_until(lambda: events.count_documents({}) >= 1000)
        app.stop()  # it notes how far it was
        drained = events.count_documents({})
        assert drained < COUNT and segment.exists()
        backup = [f"e{n}" for n in range(drained - 300)]
        events.delete_many({"_id": {"$nin": backup}})

        app.settings = settings
        app.start()
        wait_until(lambda: not segment.exists())
        assert events.count_documents({}) == COUNT
    assert "drained_events_missing" in app.log and "Traceback" not in app.log
