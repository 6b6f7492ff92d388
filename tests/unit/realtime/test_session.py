"""How long a packet may be before its session has joined a namespace."""

import orjson
import pytest

from app.identity.tokens import MAX_TOKEN_LENGTH
from app.realtime.topics import MAX_TOPIC_LENGTH
from app.realtime.transport.session import max_connect_bytes


@pytest.mark.parametrize("max_topics", [1, 128, 1000])
def test_a_connect_with_the_longest_token_and_a_resume_of_all_permitted_topics_fits(max_topics):
    position = {"since": 2**53 - 1, "epoch": "e" * 128, "ack": False, "mode": "latest", "batch": False}
    topics = [f"{number:05}".ljust(MAX_TOPIC_LENGTH, "t") for number in range(max_topics)]
    auth = {"token": "x" * MAX_TOKEN_LENGTH, "resume": dict.fromkeys(topics, position)}
    packet = b"40/realtime," + orjson.dumps(auth)
    assert len(packet) <= max_connect_bytes(max_topics, MAX_TOKEN_LENGTH)


def test_and_one_of_half_a_megabyte_does_not():
    assert max_connect_bytes(128, MAX_TOKEN_LENGTH) < 80_000
