"""What a polling client posts, looked at before the library believes it."""

from base64 import b64decode

MAX_PACKETS_PER_POST = 10_000  # the library's own 16 are fewer than a stock client sends in one tick
SEPARATOR = "\x1e"
PACKETS_OF_A_POST = frozenset("134")


def read_post(environ: dict, max_bytes: int) -> bytes:
    """The body. Raises ValueError for what is no Engine.IO payload."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length <= max_bytes else b""
    if len(body) < length:
        raise ValueError("the body is longer than is read")
    packets = body.decode().split(SEPARATOR, MAX_PACKETS_PER_POST)
    if len(packets) > MAX_PACKETS_PER_POST:
        raise ValueError("too many packets")
    for packet in packets:
        if packet[:1] == "b":
            b64decode(packet[1:], validate=True)
        elif packet[:1] not in PACKETS_OF_A_POST:
            raise ValueError("this is not an Engine.IO packet")
    return body
