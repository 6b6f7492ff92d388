"""Compresses answers to polls in pieces. engineio compresses a megabyte in one piece at the highest level, which blocks all other
clients for 50 ms and makes the answer hardly smaller."""

import zlib

from app.serving.fairness import LARGE_BYTES, TimeSlice

LEVEL = 3
GZIP = 16 + zlib.MAX_WBITS


def gzip_in_turns(data: bytes) -> bytes:
    compressor, time_slice = zlib.compressobj(LEVEL, wbits=GZIP), TimeSlice()
    pieces = []
    for begin in range(0, len(data), LARGE_BYTES):
        pieces.append(compressor.compress(data[begin : begin + LARGE_BYTES]))
        time_slice.yield_if_over()
    return b"".join([*pieces, compressor.flush()])
