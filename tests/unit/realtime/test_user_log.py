"""Lines that users cause: each has a share, and all together a bound."""

from app.realtime.user_log import ALL_USERS, UserLog
from tests.apps import NOW


class Lines(list):
    def info(self, event, **fields):
        self.append((event, fields))


def test_one_user_who_subscribes_without_end_does_not_push_out_the_lines_of_another():
    lines = Lines()
    log = UserLog(lines)
    for number in range(5000):
        log.info("subscribed", "flooder", NOW, topic=f"t{number}")
    assert len(lines) == 300
    log.info("subscribed", "u1", NOW, topic="flags")
    assert lines[-1] == ("subscribed", {"user": "u1", "topic": "flags", "suppressed": 4700})


def test_many_users_together_have_a_bound():
    lines = Lines()
    log = UserLog(lines)
    for number in range(3 * ALL_USERS):
        log.info("connected", f"u{number}", NOW)
    assert len(lines) == ALL_USERS
    log.info("subscribed", "u1", NOW, topic="flags")
    assert lines[-1][0] == "subscribed"
