"""How the commands of telemetry write file names and numbers."""


def printable(text: object) -> str:
    """Return the text without the bytes that a terminal cannot show: the name of a file may not be UTF-8."""
    return str(text).encode("utf-8", "replace").decode()


def count_of(number: int, thing: str) -> str:
    """Return `1 event`, `2,000 events`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
