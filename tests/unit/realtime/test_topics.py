"""What a topic is called, and what a pattern means."""

import pytest

from app.realtime.topics import is_topic, matches


@pytest.mark.parametrize("name", ["a", "user:u1", "notice:all", "a/b/c", "A.b_c-d", "9", "x" * 255])
def test_letters_digits_and_a_few_signs_make_a_topic(name):
    assert is_topic(name)


@pytest.mark.parametrize("name", ["", "a b", "é", "a\n", "\n", "a*", "a,b", "x" * 256, None, 1, True, b"a", ["a"], {}])
def test_anything_else_does_not(name):
    assert not is_topic(name)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("notice:all", "notice:all", True),
        ("notice:all", "notice:al", False),
        ("notice:all", "notice:all2", False),
        ("notice:*", "notice:all", True),
        ("notice:*", "notice:", True),
        ("notice:*", "notice", False),
        ("*", "anything", True),
        ("a*c", "abc", False),
        ("", "a", False),
    ],
)
def test_a_pattern_is_a_topic_or_a_prefix_ending_in_a_star(pattern, topic, expected):
    assert matches(pattern, topic) is expected
