"""Who may listen to a topic and who may speak on it."""

import pytest

from app.identity.identity import Identity
from app.realtime.permissions import may_connect, may_publish, may_subscribe

USER = Identity(kind="user", user_id="u1", roles=("editor",))
ADMIN = Identity(kind="user", user_id="root", roles=("admin",))
SERVICE = Identity(kind="user", user_id="billing", roles=("service",))
GUEST = Identity(kind="user", user_id="g", subscribe_to=("room:1", "live:*"), publish_to=("chat:*",))
WRITE_KEY = Identity(kind="write_key", write_key_name="web")


@pytest.mark.parametrize("topic", ["notice:all", "notice:", "flags", "user:u1"])
def test_anyone_listens_to_notices_to_flags_and_to_the_own_topic(topic):
    assert may_subscribe(USER, topic)


@pytest.mark.parametrize("topic", ["user:u2", "user:u1:x", "user:u", "user:", "notice", "flagsx", "room:1", "role:editor"])
def test_nobody_listens_to_what_was_not_given_to_them(topic):
    assert not may_subscribe(USER, topic)


def test_a_token_opens_the_topics_it_names():
    assert may_subscribe(GUEST, "room:1") and may_subscribe(GUEST, "live:goals") and may_subscribe(GUEST, "notice:all")
    assert not may_subscribe(GUEST, "room:2") and not may_subscribe(GUEST, "chat:1")


def test_a_token_lets_speak_where_it_says_and_nowhere_else():
    assert may_publish(GUEST, "chat:1")
    assert not may_publish(GUEST, "room:1") and not may_publish(GUEST, "notice:all") and not may_publish(GUEST, "user:g")


def test_a_user_speaks_nowhere():
    assert not any(may_publish(USER, topic) for topic in ("notice:all", "flags", "user:u1", "x"))


def test_an_admin_may_do_everything():
    assert all(may_subscribe(ADMIN, topic) and may_publish(ADMIN, topic) for topic in ("user:u1", "room:9", "flags"))


def test_a_service_speaks_everywhere_and_listens_like_anybody():
    assert may_publish(SERVICE, "user:u1") and may_publish(SERVICE, "anything")
    assert may_subscribe(SERVICE, "user:billing") and not may_subscribe(SERVICE, "user:u1")


def test_a_write_key_does_not_even_connect():
    assert not may_connect(WRITE_KEY) and may_connect(USER)
    assert not may_subscribe(WRITE_KEY, "notice:all") and not may_subscribe(WRITE_KEY, "user:None") and not may_publish(WRITE_KEY, "x")


def test_a_star_in_a_user_id_is_no_pattern():
    assert not may_subscribe(Identity(kind="user", user_id="*"), "user:u1")
