"""Stores the messages that MongoDB will never accept, as lines `{line, reason}` in DATA_DIR/realtime/messages.rejected.

The file is for operators to read. Its size is limited: a message beyond the limit is logged as lost, since a refused message must
not block the ones behind it.
"""

from pathlib import Path

from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.archive.message_lines import encode
from app.realtime.log import Message
from app.storage.disk import make_folder
from app.storage.segments.rejected import RejectedFile
from app.storage.segments.segment import size_of

log = SampledLog(get_logger(__name__))

MAX_BYTES = 67_108_864


class RefusedMessages:
    """The file of refused messages."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES):
        self._file = RejectedFile(folder / "messages")
        self._max_bytes = max_bytes

    def add(self, refused: list[tuple[Message, str]]) -> None:
        """Store pairs of a message and a reason. They are durable on return, unless the file is full. Raises OSError."""
        path = self._file.path
        make_folder(path.parent)
        has_room = size_of(path) < self._max_bytes
        if has_room:
            self._file.add([(encode(message), reason) for message, reason in refused])
        event = "archive_message_refused" if has_room else "archive_message_lost"
        for message, reason in refused:
            log.error(event, topic=message.topic, epoch=message.epoch, seq=message.seq, id=message.id, error=reason[:300], file=str(path))
