"""Answers to polls, compressed in turns."""

import gzip
import time

import gevent
import orjson
import pytest

from app.realtime.transport.compression import gzip_in_turns

MEGABYTE = orjson.dumps([{"seq": number, "payload": {"x": number * 0.731, "text": f"{number:x}" * 3}} for number in range(16_000)])


@pytest.mark.parametrize("data", [b"", b"x", MEGABYTE[:70_000], MEGABYTE], ids=["nothing", "one byte", "70 kB", "a megabyte"])
def test_what_is_compressed_is_the_same_when_it_is_unpacked(data):
    assert gzip.decompress(gzip_in_turns(data)) == data


def test_others_have_their_turn_while_a_megabyte_is_compressed():
    looks, done = [], []

    def others():
        while not done:
            looks.append(time.process_time())
            gevent.sleep(0.0001)

    watcher = gevent.spawn(others)
    gevent.sleep(0.001)
    gzip_in_turns(MEGABYTE)
    done.append(True)
    watcher.join()
    assert max(after - before for before, after in zip(looks, looks[1:], strict=False)) < 0.01
