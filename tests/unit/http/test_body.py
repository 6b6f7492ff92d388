"""A body is inflated as far as is allowed, and not one byte further."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.http.body import inflate


def refusal(raw, max_bytes=100):
    with pytest.raises(ApiError) as refused:
        inflate(raw, max_bytes)
    return refused.value.code


@given(st.binary(max_size=100))
def test_what_was_compressed_comes_out_again(data):
    assert inflate(gzip.compress(data), 100) == data


def test_the_limit_is_a_limit_of_the_inflated_body():
    assert inflate(gzip.compress(b"x" * 100), 100) == b"x" * 100
    assert refusal(gzip.compress(b"x" * 101)) == "payload_too_large"


def test_a_bomb_costs_no_more_memory_than_the_limit():
    bomb = gzip.compress(gzip.compress(b"\x00" * 100_000_000))
    layer = zlib.decompressobj(31).decompress(bomb)
    tracemalloc.start()
    assert refusal(layer, 512_000) == "payload_too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_all_members_count_and_all_of_them_together_have_the_limit():
    member = gzip.compress(b"x" * 40)
    assert inflate(member + gzip.compress(b"y") + gzip.compress(b""), 100) == b"x" * 40 + b"y"
    assert refusal(member * 3) == "payload_too_large"


def test_a_body_of_many_pieces_comes_out_whole():
    data = random.Random(1).randbytes(200_000) + b"x" * 200_000 + random.Random(2).randbytes(65_536)
    assert inflate(gzip.compress(data), len(data)) == data
    assert inflate(gzip.compress(data[:70_000]) + gzip.compress(data[70_000:]), len(data)) == data
    assert refusal(gzip.compress(data), len(data) - 1) == "payload_too_large"


@pytest.mark.parametrize("zeros", [1, 7, 512, 100_000])
def test_zero_bytes_behind_a_member_are_padding(zeros):
    padding = bytes(zeros)
    assert inflate(gzip.compress(b"a") + padding, 100) == b"a"
    assert inflate(gzip.compress(b"a") + padding + gzip.compress(b"b") + padding, 100) == b"ab"
    assert refusal(padding + gzip.compress(b"a")) == refusal(gzip.compress(b"a") + padding + b"x") == "bad_request"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"\x1f\x8b", gzip.compress(b"whole")[:-1], gzip.compress(b"whole") + b"more", zlib.compress(b"deflate"),
     gzip.compress(b"a")[:-8] + bytes(8)],
    ids=["nothing", "plain", "a beginning", "cut", "more behind it", "zlib", "a wrong sum"],
)  # fmt: skip
def test_whatever_is_no_gzip_is_a_bad_request(raw):
    assert refusal(raw) == "bad_request"


@given(st.binary())
def test_any_bytes_are_a_body_or_an_api_error(raw):
    try:
        assert len(inflate(raw, 100)) <= 100
    except ApiError as error:
        assert error.code in ("bad_request", "payload_too_large")
