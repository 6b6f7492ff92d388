"""Engine.IO packets as clients send them, looked at before the library believes them: a body of several, or one of a websocket."""

from base64 import b64decode

from app.serving.fairness import yield_before_large, yield_if_slice_is_over

MAX_PACKETS_PER_POST = 10_000  # a stock client sends all that it has in one tick
SEPARATOR = "\x1e"
MESSAGE = "4"
PACKETS_OF_A_POST = frozenset("13")  # close and pong, beside messages and binary
PACKETS_OF_A_WEBSOCKET = frozenset("1235")  # close, ping, pong and upgrade; open and noop are the server's
SOCKET_IO_TYPES = frozenset("0123456")
MAX_CONTROL_LENGTH = 64  # the longest that has a meaning is 2probe


def read_post(environ: dict, max_bytes: int) -> list[str]:
    """The packets of the body. Raises ValueError for what is no Engine.IO payload."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > max_bytes:
        raise ValueError("the body is longer than allowed")
    yield_before_large(length)
    yield_if_slice_is_over(length)
    body = environ["wsgi.input"].read(length)
    if len(body) < length:
        raise ValueError("the body is longer than is read")
    packets = body.decode().split(SEPARATOR, MAX_PACKETS_PER_POST)
    if len(packets) > MAX_PACKETS_PER_POST:
        raise ValueError("too many packets")
    for packet in packets:
        if packet[:1] == "b":
            _check_base64(packet[1:])
        elif not is_packet(packet, PACKETS_OF_A_POST):
            raise ValueError("this is not an Engine.IO packet")
    return packets


def is_packet(text: str, control_packets: frozenset[str]) -> bool:
    """A message has to be a Socket.IO packet: engineio would decode any other text as JSON, however long it is."""
    if text[:1] == MESSAGE:
        return text[1:2] in SOCKET_IO_TYPES
    return text[:1] in control_packets and len(text) <= MAX_CONTROL_LENGTH


def _check_base64(text: str) -> None:
    """Line breaks inside are how some clients (Java's) write it."""
    b64decode("".join(text.split()), validate=True)
