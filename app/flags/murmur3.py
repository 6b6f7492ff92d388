"""MurmurHash3, x86, 32 bits (Austin Appleby, public domain), the hash of Unleash's percentages.

It is not a dependency: a package that changed its hash would move users between buckets.
"""

from struct import unpack_from

MASK = 0xFFFFFFFF
C1, C2 = 0xCC9E2D51, 0x1B873593


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """Return the hash of `data` as an unsigned number of 32 bits."""
    blocks, tail = divmod(len(data), 4)
    h = seed
    for k in unpack_from(f"<{blocks}I", data):
        h ^= _scramble(k)
        h = (h << 13 | h >> 19) & MASK
        h = (h * 5 + 0xE6546B64) & MASK
    if tail:
        h ^= _scramble(int.from_bytes(data[-tail:], "little"))
    h ^= len(data)
    h = ((h ^ h >> 16) * 0x85EBCA6B) & MASK
    h = ((h ^ h >> 13) * 0xC2B2AE35) & MASK
    return h ^ h >> 16


def _scramble(k: int) -> int:
    k = (k * C1) & MASK
    k = (k << 15 | k >> 17) & MASK
    return (k * C2) & MASK
