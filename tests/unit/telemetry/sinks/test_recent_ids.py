"""Which repetitions the spool recognises."""

from app.telemetry.sinks.recent_ids import RecentIds


def remembered(size, *batches):
    recent = RecentIds(size)
    for batch in batches:
        recent.add(batch)
    return recent


def names(first, last):
    return [f"e{number}" for number in range(first, last)]


def test_what_came_lately_is_known_and_nothing_else():
    assert remembered(10, ["a", "b"]).among(["b", "x", "a"]) == ["b", "a"]


def test_the_newest_are_known_however_many_have_come():
    recent = remembered(100, *(names(start, start + 7) for start in range(0, 7000, 7)))
    assert recent.among(names(6900, 7000)) == names(6900, 7000)


def test_no_more_than_twice_as_many_are_known_and_a_batch():
    recent = remembered(100, *(names(start, start + 7) for start in range(0, 7000, 7)))
    assert 100 <= len(recent.among(names(0, 7000))) <= 207


def test_a_size_of_nothing_remembers_nothing():
    assert remembered(0, ["a"], ["b"]).among(["a", "b"]) == []
