"""How far each durable topic was numbered, on disk, so that its numbering goes on after a restart, and who comes back with a
position gets exactly what was missed, out of the archive.

The invariant: (topic, epoch, seq) never names two messages. A number is in the file before anybody is told of it: one write
into one slot within one page, which stands however the process ends, kill -9 included. Only a crash of the machine may take
it back, so the file says which boot of the machine it belongs to, and whether it was sealed (synced) since; where neither
vouches for it, all topics begin in new epochs. So they do where the file is a copy that was put in the place of the one that was
written: the header holds the number of its inode. A number may be used again, and a whole machine may be put back from a snapshot: a
file that was touched after its last slot was written, or before this start of the machine, is not certain, and the archive decides.

The other half, that nothing is passed over in silence, needs the file to know of every message: so there is one file, and
it belongs to the process that began last. It makes a new file in the place of the old one, and takes over what stands there only
where nobody holds it any more; it holds the old one until the new one is in its place, and beginners take turns. Any trouble
with the disk removes the file, or spoils it; where not even that can be done, the topics go on in new epochs at once, and what
is published in those is passed over in silence by a later process that takes the file over: nothing on this disk could tell it.

The invariant of what all share: a party that has to give up a topic does not end its numbering while a lighter party of the same kind
(user, or trusted) has published to it lately. The topic then counts against that party, and its epoch and its seq continue.
"""

import os
import time
import zlib
from collections import OrderedDict
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import orjson

from app.clock import system_clock
from app.logs import get_logger
from app.realtime.log.publishers import THE_SERVER
from app.realtime.log.shares import Shares
from app.realtime.topics import matches
from app.storage.disk import make_folder, open_lock, private, sync_folder
from app.storage.segments.segment import lock_alone

log = get_logger(__name__)

SLOT_BYTES = 512  # so that none lies across two pages; the longest topic with its epoch has room in it
TEXT_BYTES = SLOT_BYTES - 9  # the others are its checksum: a slot without the right one vouches for nothing
GUESTS = 4  # parties beside its owner that a topic may pass to: as many as have room in a slot
LOOKED_AT = 16  # topics of a party that has to give up one; a topic that no other party may inherit goes first
TOUCHED_MS = 1000  # between the time in a slot and that of its file
TURN_WITHIN_S = 10  # a beginner needs milliseconds: after this the one before hangs
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Place(NamedTuple):
    slot: int
    epoch: str
    seq: int
    at: int
    owner: "_Owner"
    guests: tuple[str, ...] = ()  # other users that published to it, by their short names, the latest first; none where it is the server's

    def row(self, topic: str) -> dict:
        row = {"topic": topic, "epoch": self.epoch, "seq": self.seq, "at": self.at, "by": self.owner.name}
        return {**row, "with": self.guests} if self.guests else row


class _Owner:
    """A party by the short name that the log has for it, and its topics, the least recently published one first."""

    def __init__(self, name: str, shares: Shares):
        self.name = name
        self.topics: OrderedDict[str, None] = OrderedDict()
        self.held = shares.holding(self, is_trusted=name == THE_SERVER)


class FileSequenceStore:
    """Before `open`, and where there is trouble, every topic is one that nobody has numbered yet. Of more than `max_topics` the
    one published to least recently is forgotten, of the party that has most of them (shares.py)."""

    def __init__(self, path: Path, patterns: tuple[str, ...], max_topics: int, boot_id=None):
        self._path = path
        self._patterns = patterns
        self._shares = Shares(max_topics)
        self._boot_id = boot_id or _boot_id
        self._fd: int | None = None
        self._places: dict[str, _Place] = {}
        self._owners: dict[str, _Owner] = {}
        self.is_certain = True
        self._is_sealed = False
        self._is_left_behind = False  # a file that another process may take over, and that no longer knows of every message

    def covers(self, topic: str) -> bool:
        return any(matches(pattern, topic) for pattern in self._patterns)

    def position(self, topic: str) -> tuple[str, int] | None:
        place = self._places.get(topic)
        return place and (place.epoch, place.seq)

    def positions(self) -> dict[str, tuple[str, int]]:
        return {topic: (place.epoch, place.seq) for topic, place in self._places.items()}

    def restart_epochs(self) -> None:
        self._forget_all()
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, SLOT_BYTES)
                self._write_header(is_sealed=False)
            except OSError as error:
                self._give_up(error)

    def record(self, topic: str, epoch: str, seq: int, now: int, owner: str = "") -> bool:
        if self._fd is None:
            return not self._is_left_behind
        try:
            if self._is_sealed:
                self._write_header(is_sealed=False)
            self._put(topic, self._assign(topic, epoch, seq, now, owner))
        except (OSError, ValueError, TypeError) as error:
            self._give_up(error)
        return not self._is_left_behind

    def open(self) -> None:
        """After the fork. What a process before this one has left is taken over, if it is certain. A topic that is not to be kept
        now goes from the file: nothing here would know what is said on it meanwhile."""
        try:
            if self._patterns:
                make_folder(self._path.parent)
                with ExitStack() as until_begun:
                    until_begun.enter_context(self._turn())
                    self._begin([row for row in self._take_over(until_begun) if self.covers(row["topic"])])
            else:
                self._path.unlink(missing_ok=True)
        except Exception as error:  # whatever it is: a server without these numbers is better than one that does not start
            with suppress(OSError):
                self.close()  # so that what is spoiled is the file that others find, not the half one
            self._give_up(error)
            self._is_left_behind = False  # what it may say, nobody goes on from here

    def seal(self) -> None:
        """At the end: what is written is there after a crash of the machine, too."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
            self._write_header(is_sealed=True)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """As the end of the process does."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextmanager
    def _turn(self):
        """One at a time from looking at the old file until the new one is there. The lock file stays: were it removed, two could
        hold one each."""
        fd = open_lock(self._path.with_name(f"{self._path.name}.lock"))
        try:
            give_up_at = time.monotonic() + TURN_WITHIN_S
            while not lock_alone(fd):
                if time.monotonic() >= give_up_at:
                    raise TimeoutError(f"another process has been beginning for {TURN_WITHIN_S} s")
                time.sleep(0.01)
            yield
        finally:
            os.close(fd)

    def _take_over(self, until_begun: ExitStack) -> list[dict]:
        """The slots of the file, the least recently used first; none where another process holds it or nothing vouches for it."""
        try:
            file = until_begun.enter_context(self._path.open("rb"))
            if not lock_alone(file.fileno()) or not os.path.samestat(os.stat(self._path), os.fstat(file.fileno())):
                reason = "another process holds it"
            else:
                header, *rows = [_row(slot) for slot in iter(lambda: file.read(SLOT_BYTES), b"")]
                _check(rows)
                is_same_boot = header["boot"] is not None and header["boot"] == self._boot_id()
                stat = os.fstat(file.fileno())
                if header.get("inode") not in (None, stat.st_ino):
                    log.error("numbers_put_back", file=str(self._path), reason="it is a copy", topics_begin="new epochs")
                    return []
                if header["isSealed"] is True or is_same_boot:
                    self.is_certain = is_same_boot and not _is_touched([header, *rows], stat.st_ctime_ns // 1_000_000)
                    return sorted(rows, key=lambda row: row["at"])
                reason = "the machine was started anew"
        except FileNotFoundError:
            return []
        except (ValueError, LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        log.warning("numbers_not_taken_over", file=str(self._path), reason=reason, topics_begin="new epochs")
        return []

    def _begin(self, rows: list[dict]) -> None:
        """The file gets its name when it is locked and on disk, so that there is never a half one."""
        half = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        self._fd = private(half, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        lock_alone(self._fd)
        for row in rows:
            place = self._assign(row["topic"], row["epoch"], row["seq"], row["at"], row.get("by", THE_SERVER))
            self._places[row["topic"]] = place._replace(guests=tuple(row.get("with", ()))[:GUESTS])
        for topic, place in self._places.items():
            self._put(topic, place)
        self._write_header(is_sealed=False)
        half.rename(self._path)
        sync_folder(self._path.parent)

    def _assign(self, topic: str, epoch: str, seq: int, at: int, owner: str) -> _Place:
        slot = self._slot_of(topic, owner)
        holder = self._places[topic].owner if topic in self._places else self._owners[owner]
        holder.topics.move_to_end(topic)
        place = self._places[topic] = _Place(slot, epoch, seq, at, holder, self._guests_of(topic, holder, owner))
        return place

    def _guests_of(self, topic: str, holder: _Owner, publisher: str) -> tuple[str, ...]:
        if holder.name == THE_SERVER:
            return ()
        guests = self._places[topic].guests if topic in self._places else ()
        if publisher in (holder.name, *guests[:1]):
            return guests
        return (publisher, *(guest for guest in guests if guest != publisher))[:GUESTS]

    def _slot_of(self, topic: str, owner: str) -> int:
        """Its own, or that of a topic which is forgotten for it, or a new one: slots are used from the first without a gap. A topic
        that the server speaks on is the server's."""
        place = self._places.get(topic)
        if place is not None and (owner != THE_SERVER or place.owner.name == THE_SERVER):
            return place.slot
        if place is not None:
            self._hand_over(topic, THE_SERVER)
            return place.slot
        self._own(topic, owner)
        forgotten = self._forget_one_for(topic) if self._shares.is_over() else None
        return forgotten.slot if forgotten else len(self._places) + 1

    def _forget_one_for(self, topic: str) -> _Place | None:
        """Ends: before a topic is forgotten, each step passes one to a party that then still holds less than the one that gave it up."""
        while loser := next((loser for loser in self._shares.losers() if next(iter(loser.topics)) != topic), None):
            topics = [name for name in islice(loser.topics, LOOKED_AT) if name != topic]
            victim = next((name for name in topics if not self._places[name].guests), None)
            if victim is None and (passed := next((name for name in topics if self._heir_of(name)), None)):
                self._hand_over(passed, self._heir_of(passed))
                self._put(passed, self._places[passed])
                continue
            victim = victim or topics[0]
            self._leave(victim, loser)
            return self._places.pop(victim)
        return None

    def _heir_of(self, topic: str) -> str | None:
        """The lightest party that the topic may pass to."""
        place = self._places[topic]
        held = {name: self._owners[name].held.amount if name in self._owners else 0 for name in place.guests}
        return min((name for name in held if held[name] + 1 < place.owner.held.amount), key=held.__getitem__, default=None)

    def _hand_over(self, topic: str, owner: str) -> None:
        place = self._places[topic]
        self._leave(topic, place.owner)
        guests = (place.owner.name, *(name for name in place.guests if name != owner))[:GUESTS]
        self._places[topic] = place._replace(owner=self._own(topic, owner), guests=() if owner == THE_SERVER else guests)

    def _own(self, topic: str, owner: str) -> _Owner:
        holder = self._owners.setdefault(owner, _Owner(owner, self._shares))
        holder.topics[topic] = None
        holder.held.change(1)
        return holder

    def _leave(self, topic: str, owner: _Owner) -> None:
        del owner.topics[topic]
        owner.held.change(-1)
        if not owner.topics:
            del self._owners[owner.name]

    def _put(self, topic: str, place: _Place) -> None:
        _put(self._fd, place.slot, {**place.row(topic), "written": system_clock()})

    def _forget_all(self) -> None:
        for topic, place in self._places.items():
            self._leave(topic, place.owner)
        self._places.clear()

    def _write_header(self, *, is_sealed: bool) -> None:
        inode = os.fstat(self._fd).st_ino
        _put(self._fd, 0, {"boot": self._boot_id(), "isSealed": is_sealed, "inode": inode, "written": system_clock()})
        os.fsync(self._fd)
        self._is_sealed = is_sealed

    def _give_up(self, error: Exception) -> None:
        """A file that does not know of every message must not be found by anybody. It is held until it is gone."""
        log.error("numbers_not_kept", file=str(self._path), error=f"{type(error).__name__}: {error}")
        self._forget_all()
        self._is_left_behind = not (self._removes() or self._spoils())
        if self._is_left_behind:
            log.error("numbers_left_behind", file=str(self._path), topics_begin="new epochs", do="remove the file")
        with suppress(OSError):
            self.close()

    def _removes(self) -> bool:
        try:
            self._path.unlink(missing_ok=True)
        except NotADirectoryError:
            return True
        except OSError:
            return False
        with suppress(OSError):  # only for a crash of the machine, after which a file that is not sealed is not believed
            sync_folder(self._path.parent)
        return True

    def _spoils(self) -> bool:
        """An empty file vouches for nothing; nor does one with a header that makes no sense, where it cannot be cut."""
        try:
            fd = os.open(self._path, os.O_RDWR) if self._fd is None else os.dup(self._fd)
        except OSError:
            return False
        try:
            for spoil in (lambda: os.ftruncate(fd, 0), lambda: os.pwrite(fd, b"\0" * SLOT_BYTES, 0)):
                with suppress(OSError):
                    spoil()
                    with suppress(OSError):
                        os.fsync(fd)
                    return True
            return False
        finally:
            os.close(fd)


def _row(slot: bytes) -> dict:
    text, checksum = slot[:TEXT_BYTES], slot[TEXT_BYTES:]
    if checksum != _checksum(text):
        raise ValueError("a slot is not as it was written")
    return orjson.loads(text)


def _check(rows: list[dict]) -> None:
    for row in rows:
        topic, epoch, seq, at, owner = (*(row[key] for key in ("topic", "epoch", "seq", "at")), row.get("by", THE_SERVER))
        guests = row.get("with", [])
        if not (type(topic) is type(epoch) is type(owner) is str and type(seq) is type(at) is int and topic and epoch and seq >= 0):
            raise ValueError("a slot does not say how far a topic was numbered")
        if not (type(guests) is list and all(type(guest) is str and guest for guest in guests)):
            raise ValueError("a slot does not say how far a topic was numbered")
    if len({row["topic"] for row in rows}) < len(rows):
        raise ValueError("a topic is in two slots")


def _is_touched(slots: list[dict], changed_at: int) -> bool:
    """The system sets the time of a file's last change, and nobody else can."""
    written = [slot["written"] for slot in slots if type(slot.get("written")) is int]
    return bool(written) and changed_at > max(written) + TOUCHED_MS


def _checksum(text: bytes) -> bytes:
    return b"%08x\n" % zlib.crc32(text)


def _put(fd: int, slot: int, row: dict) -> None:
    text = orjson.dumps(row).ljust(TEXT_BYTES)
    text += _checksum(text)
    if len(text) != SLOT_BYTES:
        raise ValueError(f"{row} is too long")
    if os.pwrite(fd, text, slot * SLOT_BYTES) != SLOT_BYTES:
        raise OSError("a slot was written in part")


def _boot_id() -> str | None:
    """Of this start of the machine; None where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None
