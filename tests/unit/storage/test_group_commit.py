"""Many callers, one commit."""

import gevent
import pytest

from app.storage.group_commit import GroupCommit, Interrupted


class Commits:
    """A commit that takes a while, and remembers what it was given."""

    def __init__(self):
        self.groups, self.error, self.running, self.most_running = [], None, 0, 0

    def __call__(self, items):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.groups.append(list(items))
        gevent.sleep(0.01)
        self.running -= 1
        if self.error:
            raise self.error
        return [f"did {item}" for item in items]


@pytest.fixture
def commits():
    return Commits()


def submit_all(group_commit, items):
    greenlets = [gevent.spawn(group_commit.submit, item, 1) for item in items]
    gevent.joinall(greenlets)
    return greenlets


def test_a_caller_who_is_alone_commits_at_once(commits):
    assert GroupCommit(commits, lanes=1, enough=100).submit("a", 1) == "did a"


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_every_item_is_in_exactly_one_commit_and_gets_its_own_result(commits, lanes):
    greenlets = submit_all(GroupCommit(commits, lanes=lanes, enough=1000), range(50))
    assert [greenlet.value for greenlet in greenlets] == [f"did {n}" for n in range(50)]
    assert sorted(sum(commits.groups, [])) == list(range(50))
    assert commits.most_running <= lanes


def test_whoever_comes_during_a_commit_shares_the_next_one(commits):
    submit_all(GroupCommit(commits, lanes=1, enough=1000), range(50))
    assert len(commits.groups) <= 2


def test_a_group_that_has_enough_is_closed(commits):
    submit_all(GroupCommit(commits, lanes=1, enough=10), range(45))
    assert max(map(len, commits.groups)) <= 10


def test_a_failure_is_told_to_everybody_who_shared_it_and_to_nobody_else(commits):
    group_commit = GroupCommit(commits, lanes=1, enough=1000)
    commits.error = ValueError("no")
    failed = submit_all(group_commit, range(5))
    assert {repr(greenlet.exception) for greenlet in failed} == {"ValueError('no')"}
    commits.error = None
    assert group_commit.submit("b", 1) == "did b"


def test_a_leader_that_is_killed_leaves_nobody_waiting(commits):
    group_commit = GroupCommit(commits, lanes=1, enough=1000)
    leader = gevent.spawn(group_commit.submit, "a", 1)
    gevent.sleep(0)
    second_leader = gevent.spawn(group_commit.submit, "b", 1)
    follower = gevent.spawn(group_commit.submit, "c", 1)
    gevent.sleep(0)
    second_leader.kill()
    gevent.joinall([leader, follower], timeout=1)
    assert leader.value == "did a"
    assert isinstance(follower.exception, Interrupted)
    assert group_commit.waiting == 0
