"""What outlives the server, and how its process gets at it."""

from app.realtime.archive import Found

DURABLE = "a"


class Disk:
    """What outlives a process: the numbers (the twin of FileSequenceStore) and what the archive has stored. `snapshot` are numbers as they
    were once, to which the machine, but not the archive, may be put back."""

    is_certain = True

    def __init__(self):
        self.places, self.stored, self.is_away, self.snapshot = {}, {}, False, None

    def covers(self, topic):
        return topic == DURABLE

    def position(self, topic):
        return self.places.get(topic)

    def record(self, topic, epoch, seq, now, owner=""):
        self.places[topic] = (epoch, seq)
        return True

    def positions(self):
        return dict(self.places)

    def restart_epochs(self):
        self.places.clear()


class SlowArchive:
    """One process's way to it: messages are stored a little later, answers take their time, and it may be away."""

    def __init__(self, world):
        self.world, self.disk, self.buffer = world, world.disk, []
        self.numbered = None

    def open(self):
        self.numbered = self.world.log.stored_positions()
        self.compare()

    def compare(self):
        """As DurableArchive does before anything is stored."""
        if self.numbered is None or self.disk.is_away:
            return
        (numbered,) = self.numbered.values() or [None]
        stored = [place[1:] for place in self.disk.stored]
        is_beyond = numbered and any(epoch == numbered[0] and seq > numbered[1] for epoch, seq in stored)
        assert not is_beyond or self.world.was_put_back, "nothing was put back"
        if is_beyond or (numbered and stored and stored[-1][0] != numbered[0]):
            self.world.log.restart_epochs()
        self.numbered = None
        for message in list(self.disk.stored.values())[-self.world.limits["max_ids"] :]:
            self.world.log.remember_answer(message.topic, message.epoch, message.seq, message.id, message.user)

    def add(self, message):
        if message.topic == DURABLE:
            self.buffer.append(message)
            self.world.later(self.world.random.randint(1, 300), self.flush)

    def flush(self):
        if not self.disk.is_away and self.world.archive is self:
            self.compare()
            for message in self.buffer:
                place = (message.topic, message.epoch, message.seq)
                assert self.disk.stored.setdefault(place, message) is message, "another message under this number"
            self.buffer.clear()

    def confirm(self):
        pass

    def covers(self, topic, epoch, after):
        return topic == DURABLE

    def check_complete(self, topic, epoch, after, last, then):
        def has_all():
            found = {message.seq for message in self.find(topic, epoch, after, last).messages}
            return found >= set(range(after + 1, last + 1))

        self.answer(has_all, then)

    def fetch(self, topic, epoch, after, last, then):
        self.answer(lambda: self.find(topic, epoch, after, last), then)

    def answer(self, look, then):
        def answer():
            if self.world.archive is self:
                then(look(), self.world.clock)

        self.world.later(self.world.random.choice([0, 1, 20, 200]), answer)

    def find(self, topic, epoch, after, last):
        own = {message.seq: message for message in self.buffer if message.epoch == epoch and message.seq > after}
        if self.disk.is_away:
            return Found([own[seq] for seq in sorted(own)][: last - after], is_whole=False)
        stored = {seq: self.disk.stored.get((topic, epoch, seq)) for seq in range(after + 1, last + 1)}
        found = stored | {seq: message for seq, message in own.items() if seq <= last}
        return Found([found[seq] for seq in sorted(found) if found[seq]], is_whole=True)
