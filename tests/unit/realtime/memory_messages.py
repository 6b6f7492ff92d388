"""Stands for the messages in MongoDB."""

from app.realtime.archive.mongo import Known, NotStored
from app.storage.errors import StorageUnavailable


class MemoryMessages:
    """Away while `is_away`; `answer` is called before each answer. By id: those that it `refuses`, and those with a `strange` objection."""

    def __init__(self):
        self.messages, self.order, self.is_away, self.asked, self.loses_answers = {}, [], False, 0, False
        self.refuses, self.strange, self.answer = set(), set(), lambda: None

    def insert(self, messages, now):
        self.asked += 1
        self.answer()
        if self.is_away:
            raise StorageUnavailable("away")
        refused = [(message, "it is refused") for message in messages if message.id in self.refuses]
        strange = [(message, "it is strange") for message in messages if message.id in self.strange]
        taken = []
        for message in messages:
            place = (message.topic, message.epoch, message.seq)
            if message.id in self.refuses | self.strange:
                continue
            if self.messages.setdefault(place, message) != message:
                taken.append(message)
            self.order.append(place)
        if self.loses_answers:
            self.loses_answers = False
            raise StorageUnavailable("the answer was lost")
        if refused or strange or taken:
            raise NotStored(refused, strange, taken)

    def find(self, topic, epoch, after, last):
        if self.is_away:
            raise StorageUnavailable("away")
        return [self.messages[place] for place in sorted(self.messages) if place[:2] == (topic, epoch) and after < place[2] <= last]

    def count(self, topic, epoch, after, last, without):
        self.counted = (after, last, without)
        return sum(message.seq not in without for message in self.find(topic, epoch, after, last))

    def any_at(self, places):
        self.asked += 1
        if self.is_away:
            raise StorageUnavailable("away")
        return next((f"{topic} {epoch} {seq}" for topic, epoch, seq in places if (topic, epoch, seq) in self.messages), None)

    def newest(self, limit):
        if self.is_away:
            raise StorageUnavailable("away")
        known = dict.fromkeys(reversed(self.order))
        found = [self.messages[place] for place in known][:limit]
        return [Known(each.topic, each.epoch, each.seq, each.id, each.user) for each in reversed(found)]

    def seqs(self, topic="t"):
        return [seq for name, _, seq in sorted(self.messages) if name == topic]
