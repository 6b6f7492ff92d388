"""Blocking work in a thread: its exceptions are its caller's, and no line of the log."""

import sqlite3

import gevent
import pytest

from app.storage.thread_pool import in_thread


def test_the_caller_gets_what_the_work_returns_while_other_greenlets_go_on():
    other = gevent.spawn(lambda: "ran")
    assert in_thread(divmod, 7, 2) == (3, 1)
    assert other.get(timeout=5) == "ran"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full"), ValueError("x")])
def test_an_exception_is_raised_in_the_caller_and_reported_nowhere_else(error, monkeypatch):
    def fail():
        raise error

    reported = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *args: reported.append(args))
    with pytest.raises(type(error), match=str(error)[:8].replace("[", r"\[")):
        in_thread(fail)
    assert reported == []
