"""Builds websocket frames as a client sends them."""

MASK = b"\x12\x34\x56\x78"


def frame(opcode, payload=b"", final=True, masked=True, reserved=0):
    """Return one frame, valid unless the arguments say otherwise."""
    first = (0x80 if final else 0) | reserved | opcode
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes((first, bit | len(payload)))
    elif len(payload) < 65_536:
        head = bytes((first, bit | 126)) + len(payload).to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + len(payload).to_bytes(8, "big")
    return head + (MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload)) if masked else payload)
