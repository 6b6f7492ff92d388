"""Names of topics, and the patterns that match them. Pure."""

import re
from typing import Any, TypeGuard

MAX_TOPIC_LENGTH = 255
TOPIC_RULE = "a string of 1 to 255 letters, digits and : . _ - /"
TOPIC_PATTERN = rf"^[A-Za-z0-9:._/-]{{1,{MAX_TOPIC_LENGTH}}}$"
_TOPIC = re.compile(TOPIC_PATTERN)


def is_topic(value: Any) -> TypeGuard[str]:
    """Whether the value is a valid topic name."""
    return isinstance(value, str) and _TOPIC.fullmatch(value) is not None


def matches(pattern: str, topic: str) -> bool:
    """Whether the pattern matches the topic. A pattern is a topic or a prefix ending in `*`; `*` alone matches every topic."""
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern
