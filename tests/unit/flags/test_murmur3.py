"""Published vectors of MurmurHash3_x86_32: SMHasher's verification value, and the ones every port is checked with."""

import pytest

from app.flags.murmur3 import murmur3_32

VECTORS = [
    (b"", 0, 0),
    (b"", 1, 0x514E28B7),
    (b"", 0xFFFFFFFF, 0x81F16F39),
    (b"\xff\xff\xff\xff", 0, 0x76293B50),
    (b"!Ce\x87", 0, 0xF55B516B),
    (b"!Ce\x87", 0x5082EDEE, 0x2362F9DE),
    (b"!Ce", 0, 0x7E4A8634),
    (b"!C", 0, 0xA0F7B07A),
    (b"!", 0, 0x72661CF4),
    (b"\0\0\0\0", 0, 0x2362F9DE),
    (b"\0\0\0", 0, 0x85F0B427),
    (b"\0\0", 0, 0x30F4C306),
    (b"\0", 0, 0x514E28B7),
    (b"abc", 0, 0xB3DD93FA),
    (b"aaaa", 0x9747B28C, 0x5A97808A),
    (b"Hello, world!", 0x9747B28C, 0x24884CBA),
    ("π".encode() * 8, 0x9747B28C, 0xD58063C1),
    (b"a" * 256, 0x9747B28C, 0x37405BDC),
    (b"The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
]


@pytest.mark.parametrize(("data", "seed", "expected"), VECTORS)
def test_murmur3_agrees_with_the_published_vectors(data, seed, expected):
    assert murmur3_32(data, seed) == expected


def test_murmur3_passes_the_verification_of_smhasher():
    """The hash of the hashes of 0, 0 1, 0 1 2, … with seeds 256, 255, …: 0xB0F57EE3 for this variant."""
    hashes = b"".join(murmur3_32(bytes(range(length)), 256 - length).to_bytes(4, "little") for length in range(256))
    assert murmur3_32(hashes) == 0xB0F57EE3
