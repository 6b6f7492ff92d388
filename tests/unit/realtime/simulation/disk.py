"""What outlives the server, and how its process gets at it."""

from app.realtime.archive import Found

DURABLE = "a"


class Disk:
    """What outlives a process: the numbers (the twin of FileNumbers) and what the archive has stored."""

    def __init__(self):
        self.places, self.stored, self.is_away = {}, {}, False

    def keeps(self, topic):
        return topic == DURABLE

    def last(self, topic):
        return self.places.get(topic)

    def note(self, topic, epoch, seq, now, owner=""):
        self.places[topic] = (epoch, seq)
        return True


class SlowArchive:
    """One process's way to it: messages are stored a little later, answers take their time, and it may be away."""

    def __init__(self, world):
        self.world, self.disk, self.buffer = world, world.disk, []

    def keep(self, message):
        if message.topic == DURABLE:
            self.buffer.append(message)
            self.world.later(self.world.random.randint(1, 300), self.flush)

    def flush(self):
        if not self.disk.is_away:
            for message in self.buffer:
                place = (message.topic, message.epoch, message.seq)
                assert self.disk.stored.setdefault(place, message) is message, "another message under this number"
            self.buffer.clear()

    def settle(self):
        pass

    def keeps(self, topic, epoch, after):
        return topic == DURABLE

    def survey(self, topic, epoch, after, last, then):
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
