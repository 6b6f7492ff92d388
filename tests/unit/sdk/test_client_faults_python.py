"""The client for Python on one bad day at a time, in virtual time: each test is something that was reported of it, or its like."""

import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.sdk.python import ConnectRefused, PublishFailed, RealtimeClient, SubscribeFailed
from app.sdk.python import subscriptions as module
from tests.unit.sdk.client_simulation.server import Server, Sio, refusal
from tests.unit.sdk.client_simulation.virtual_time import VirtualTime


class Scene:
    """A server without faults, and calls of the client that end in `results`."""

    def __init__(self):
        self.time = VirtualTime()
        self.server = Server(self.time, random.Random(1))
        self.sio = Sio(self.server)
        self.states, self.errors, self.client, self.refused = [], [], None, None

    def connect(self, token="token", run_s=1.0, **options):
        def connect():
            try:
                self.client = RealtimeClient(
                    "http://nowhere", token, sio=self.sio, threads=self.time, on_error=self.errors.append,
                    on_state=lambda state, detail: self.states.append(state), **options,
                )  # fmt: skip
            except ConnectRefused as error:
                self.refused = error

        self.time.start(connect, "caller")
        self.run(run_s)
        return self.client

    def run(self, seconds):
        self.time.run(self.time.time + seconds)

    def call(self, act):
        """In a thread of its own: a list that gets what it returned, or the code that it failed with, and when."""
        result = []

        def caller():
            try:
                result.append(act())
            except (PublishFailed, SubscribeFailed) as error:
                result.append(error.code)
            result.append(round(self.time.time))

        self.time.start(caller, "caller")
        return result

    def heard(self, kind):
        return [frame for frame in self.server.heard if frame["type"] == kind]

    def refuse(self, kind, *codes, **more):
        """The next frames of this kind are refused so."""
        left = list(codes)
        self.server.script = lambda frame: refusal(left.pop(0), **more) if frame["type"] == kind and left else None


@pytest.fixture
def scene():
    return Scene()


@pytest.mark.parametrize("code", ["rate_limited", "unavailable", "internal"])
@pytest.mark.parametrize("kind", ["subscribe", "resume", "publish", "unsubscribe"])
def test_a_request_that_is_refused_for_now_is_sent_again_when_the_server_says(scene, code, kind):
    client = scene.connect()
    scene.refuse(kind, code, code, retryAfterMs=2000)
    seen = []
    ready = client.subscribe("t", lambda payload, message: seen.append(payload))
    if kind == "resume":
        scene.server.cut()
    scene.run(10)
    published = scene.call(lambda: client.publish("t", 1))
    scene.run(10)
    assert ready.is_set() and published[0]["seq"] == 1 and seen == [1]
    left = client.unsubscribe("t")
    scene.run(10)
    assert left.is_set() and scene.server.sessions[0].cursors == {}
    assert len(scene.heard("subscribe")) == (3 if kind == "subscribe" else 1)
    assert len(scene.heard("publish")) == (3 if kind == "publish" else 1)
    assert len(scene.heard("unsubscribe")) == (3 if kind == "unsubscribe" else 1)


@pytest.mark.parametrize("kind", ["subscribe", "publish"])
def test_an_expired_token_is_renewed_and_the_request_sent_again(scene, kind):
    client = scene.connect(lambda: "fresh")
    scene.refuse(kind, "token_expired")
    ready = client.subscribe("t", print)
    published = scene.call(lambda: client.publish("t", 1))
    scene.run(5)
    assert scene.heard("auth") and ready.is_set() and published[0]["seq"] == 1


def test_a_token_that_comes_after_the_connection_has_changed_is_not_sent_on_the_new_one(scene):
    tokens = iter(["first", "renewed", "second"])

    def token():
        given = next(tokens)
        scene.time.sleep(3 if given == "renewed" else 0)
        return given

    scene.connect(token)
    scene.server.sessions[0].send(refusal("token_expired"))
    scene.run(1)
    scene.server.cut()
    scene.run(10)
    assert [frame["token"] for frame in scene.heard("connect")] == ["first", "second"] and scene.heard("auth") == []


@pytest.mark.parametrize("limit", [3, 128])
def test_a_refused_topic_costs_the_others_nothing_at_the_next_connection(scene, limit):
    scene.server.max_topics = limit
    client = scene.connect()
    seen = []
    topics = ["a", "b", "secret", "c", "d"]
    outcomes = {topic: scene.call(client.subscribe(topic, lambda payload, message: seen.append(message["topic"])).wait) for topic in topics}
    scene.run(5)
    for _ in range(2):
        scene.server.cut()
        scene.run(10)
    for topic in topics:
        scene.server.append(topic, f"m{topic}", 1)
    scene.run(5)
    assert outcomes["secret"][0] == "forbidden" and outcomes["d"][0] in (True, "limit_exceeded")
    assert seen == (["a", "b", "c"] if limit == 3 else ["a", "b", "c", "d"])
    assert {error["topic"] for error in scene.errors} >= {"secret"}


def test_more_topics_than_may_be_resumed_are_asked_for_one_by_one(scene):
    scene.server.max_topics = 3
    scene.server.is_down = True
    scene.connect(give_up_s=math.inf)
    scene.server.is_down = False
    scene.run(60)
    for n in range(5):
        scene.client.subscribe(f"t{n}", print)
    scene.client.subscriptions.topics["t0"].seq = 0  # as if all five had stood on a server with another limit
    scene.server.cut()
    scene.run(20)
    assert len(scene.server.sessions[0].cursors) == 3
    assert {error["topic"] for error in scene.errors if error["code"] == "limit_exceeded" and "topic" in error} == {"t3", "t4"}


def test_a_websocket_that_hangs_is_followed_by_polling(scene):
    scene.server.hangs = True
    assert scene.connect(run_s=15) and scene.sio.attempts == [["websocket"], ["polling"]]


def test_a_round_trip_of_several_seconds_still_connects_and_gets_answers(scene):
    scene.server.latency_s = 3.0
    client = scene.connect(run_s=40)
    published = scene.call(lambda: client.publish("t", 1))
    subscribed = scene.call(client.subscribe("t", print).wait)
    scene.run(30)
    assert published[0]["seq"] == 1 and subscribed[0] is True and scene.server.connects == 1


@pytest.mark.parametrize(
    ("payload", "code"),
    [("x" * 3000, "payload_too_large"), (["é" * 500], "payload_too_large"), (math.nan, "bad_request"), (b"binary", "bad_request")],
)
def test_a_payload_that_cannot_be_taken_fails_at_once_and_costs_no_connection(scene, payload, code):
    client = scene.connect(max_frame_bytes=2000)
    published = scene.call(lambda: client.publish("t", payload))
    scene.run(1)
    assert published == [code, 1] or published == [code, 2]
    assert scene.server.connects == 1 and scene.heard("publish") == []


def test_a_payload_that_is_changed_while_it_waits_is_sent_as_it_was_given(scene):
    client = scene.connect()
    scene.server.cut()
    payload = {"n": 1}
    published = scene.call(lambda: client.publish("t", payload))
    scene.run(0.0001)
    payload["n"] = 2
    scene.run(5)
    assert published[0]["seq"] == 1 and scene.server.log("t").messages[1]["payload"] == {"n": 1}


def test_what_waits_while_offline_is_given_up_in_time(scene):
    client = scene.connect()
    scene.server.is_down = True
    scene.server.cut()
    scene.run(1)
    published = scene.call(lambda: client.publish("t", 1, give_up_s=3))
    subscribed = scene.call(client.subscribe("t", print, give_up_s=7).wait)
    patient = scene.call(lambda: client.publish("t", 2, give_up_s=math.inf))
    scene.run(100)
    assert (published, subscribed, patient) == (["unavailable", 5], ["unavailable", 9], [])
    scene.server.is_down = False
    scene.run(20)
    assert patient[0]["seq"] == 1 and "t" in scene.server.sessions[0].cursors, "the subscription is still wanted"


def test_when_all_attempts_are_used_up_it_is_closed_and_everything_fails(scene):
    scene.sio.reconnection_attempts = 3
    client = scene.connect()
    waiting = scene.call(client.subscribe("t", print, give_up_s=math.inf).wait)
    scene.run(1)
    scene.server.is_down = True
    scene.server.cut()
    scene.run(0.1)
    published = scene.call(lambda: client.publish("t", 1, give_up_s=math.inf))
    unsubscribed = scene.call(client.subscribe("u", print, give_up_s=math.inf).wait)
    scene.run(60)
    late = scene.call(lambda: client.publish("t", 1))
    scene.run(1)
    assert waiting[0] is True and published[0] == unsubscribed[0] == late[0] == "unavailable"
    assert scene.states == ["connecting", "live", "offline", "closed"]


def test_a_constructor_does_not_wait_longer_than_it_was_told(scene):
    scene.server.is_down = True
    scene.connect(give_up_s=5, run_s=20)
    assert scene.refused.answer["code"] == "unavailable" and scene.client is None
    assert scene.time.running == set()


def test_two_subscriptions_to_one_topic_both_get_it_and_one_may_leave(scene):
    client = scene.connect()
    one, other = [], []
    first = client.subscribe("t", lambda payload, message: one.append(payload))
    client.subscribe("t", lambda payload, message: other.append(payload))
    scene.run(1)
    scene.server.append("t", "1", 1)
    scene.run(1)
    assert first.unsubscribe().is_set()
    scene.server.append("t", "2", 2)
    scene.run(1)
    assert (one, other) == ([1], [1, 2]) and len(scene.heard("subscribe")) == 1 and scene.heard("unsubscribe") == []


def test_a_second_subscription_may_begin_earlier_than_the_first(scene):
    client = scene.connect()
    one, other = [], []
    client.subscribe("t", lambda payload, message: one.append(payload))
    scene.run(1)
    for n in range(1, 4):
        scene.server.append("t", str(n), n)
    scene.run(1)
    client.subscribe("t", lambda payload, message: other.append(payload), since=0, epoch=scene.server.log("t").epoch)
    scene.run(1)
    scene.server.append("t", "4", 4)
    scene.run(1)
    assert (one, other) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_unsubscribed_and_subscribed_on_a_slow_link_it_is_ready_when_the_new_one_stands(scene):
    scene.server.latency_s = 1.0
    client = scene.connect(run_s=10)
    old = client.subscribe("t", print)
    scene.run(10)
    seen = []
    old.unsubscribe()
    new = scene.call(client.subscribe("t", lambda payload, message: seen.append(payload)).wait)
    scene.run(0.1)
    scene.server.append("t", "old", "meant for the old one")
    while not new:
        scene.run(0.1)
    assert scene.server.sessions[0].unsubscribed and "t" in scene.server.sessions[0].cursors
    scene.server.append("t", "new", "new")
    scene.run(5)
    assert seen == ["new"]


def test_a_slow_handler_holds_up_no_publish_and_what_waits_for_it_is_bounded_and_comes(scene, monkeypatch):
    monkeypatch.setattr(module, "MAX_CALLS", 8)
    client = scene.connect()
    seen, most = [], []

    def slow(payload, message):
        seen.append(payload)
        client.publish("other", payload)
        most.append(len(client.subscriptions.calls))
        scene.time.sleep(1)

    client.subscribe("t", slow)
    scene.run(1)
    threads = len(scene.time.running)
    for n in range(100):
        scene.server.append("t", str(n), n)
    scene.run(2)
    assert len(scene.time.running) == threads
    scene.run(200)
    assert seen == list(range(100)) and max(most) <= 8


def test_a_message_is_acknowledged_when_its_handler_has_returned(scene):
    client = scene.connect()
    client.subscribe("t", lambda payload, message: scene.time.sleep(2))
    scene.run(1)
    for n in range(3):
        scene.server.append("t", str(n), n)
    scene.run(1)
    assert [frame["acks"] for frame in scene.heard("ack")] == []
    scene.run(10)
    assert [frame["acks"]["t"] for frame in scene.heard("ack")] == [1, 2, 3]


def test_a_server_that_answers_nothing_any_more_is_left_for_a_new_connection(scene):
    client = scene.connect()
    scene.server.sessions[0].is_mute = True
    published = scene.call(lambda: client.publish("t", 1))
    scene.run(40)
    assert published[0]["seq"] == 1 and scene.server.connects == 2 and "offline" in scene.states


def test_a_function_of_the_callers_that_raises_changes_nothing(scene, caplog):
    client = scene.connect()
    seen = []

    def handler(payload, message):
        seen.append(payload)
        raise RuntimeError("handler")

    client.subscribe("t", handler)
    scene.run(1)
    scene.server.append("t", "1", 1)
    scene.server.append("t", "2", 2)
    scene.run(1)
    assert seen == [1, 2]


def test_the_folder_can_be_copied_and_imports_nothing_of_the_server(tmp_path):
    shutil.copytree(Path(module.__file__).parent, tmp_path / "client")
    script = "import sys; from client import RealtimeClient; print([name for name in sys.modules if name.split('.')[0] == 'app'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr


def test_a_topic_that_is_no_name_is_refused_at_once(scene):
    client = scene.connect()
    for topic in ("", "x" * 256, None, 7):
        with pytest.raises(SubscribeFailed, match=re.escape("1 to 255")):
            client.subscribe(topic, print).wait()
    for place in ({"since": -1}, {"since": "1"}, {"since": 1, "epoch": 7}):
        with pytest.raises(SubscribeFailed, match="whole number"):
            client.subscribe("t", print, **place).wait()
    assert scene.heard("subscribe") == []


@pytest.mark.parametrize(
    ("sizes", "bytes_per_s", "within_s"), [([62000], 3500, 20), ([30000], 1200, 28), ([62000, 62000, 62000], 3500, 58)]
)
def test_on_a_narrow_link_a_payload_that_is_still_leaving_is_waited_for_and_sent_once(scene, sizes, bytes_per_s, within_s):
    scene.server.bytes_per_s, scene.server.max_frame_bytes = bytes_per_s, 64_000
    client = scene.connect()
    published = [scene.call(lambda text=text: client.publish("t", text)) for text in [*("x" * size for size in sizes), "small"]]
    scene.run(70)
    assert sorted(answer["seq"] for answer, _ in published) == list(range(1, len(sizes) + 2)) and max(at for _, at in published) <= within_s
    assert len(scene.heard("publish")) == len(sizes) + 1
    assert (scene.server.connects, scene.states) == (1, ["connecting", "live"])


def test_on_a_narrow_link_an_answer_behind_a_large_message_is_waited_for(scene):
    scene.server.bytes_per_s, scene.server.max_frame_bytes = 3500, 64_000
    client = scene.connect()
    seen = []
    client.subscribe("t", lambda payload, message: seen.append(message["seq"]))
    scene.run(1)
    for id in ("1", "2", "3"):
        scene.server.append("t", id, "x" * 62_000)
    published = scene.call(lambda: client.publish("u", 1))
    scene.run(58)
    assert published[0]["seq"] == 1 and len(scene.heard("publish")) == 1
    assert (scene.server.connects, seen) == (1, [1, 2, 3])


def test_many_topics_are_resumed_over_a_narrow_link(scene):
    scene.server.bytes_per_s, scene.server.max_frame_bytes, scene.server.max_topics = 2000, 64_000, 128
    client = scene.connect()
    for n in range(128):
        client.subscribe(str(n).ljust(255, "x"), print)
    scene.run(90)
    scene.server.cut()
    scene.run(90)
    assert (client.state, scene.server.connects, len(scene.heard("connect"))) == ("live", 2, 2)
    assert len(scene.server.sessions[0].cursors) == 128


def test_a_server_that_pings_and_answers_nothing_is_left_for_a_new_connection(scene):
    client = scene.connect()
    scene.server.sessions[0].is_mute = True
    for at in range(0, 90, 10):
        scene.time.later(at, client.requests.heard)
    published = scene.call(lambda: client.publish("t", 1, give_up_s=100))
    scene.run(90)
    assert published[0]["seq"] == 1 and scene.server.connects == 2


def test_a_request_that_the_server_lost_is_sent_again_where_a_later_one_is_answered(scene):
    client = scene.connect()
    session = scene.server.sessions[0]
    receive, lost = session.receive, []
    session.receive = lambda frame, callback: receive(frame, callback) if lost else lost.append(frame)
    published = [scene.call(lambda payload=payload: client.publish("t", payload)) for payload in (1, 2)]
    scene.run(10)
    assert [answer["seq"] for answer, _ in published] == [2, 1] and scene.server.connects == 1


def test_a_server_that_accepts_and_closes_at_once_is_tried_more_and_more_rarely(scene):
    scene.server.closes_at_once = True
    client = scene.connect(run_s=60)
    connects = scene.server.connects
    scene.run(60)
    later, scene.server.closes_at_once = scene.server.connects - connects, False
    scene.run(30)
    assert connects <= 16 and later <= 13 and client.state == "live"


def test_a_connection_that_stood_for_a_while_is_followed_by_a_new_one_soon(scene):
    client = scene.connect()
    for _ in range(5):
        scene.run(10)
        scene.server.cut()
    scene.run(2)
    assert (client.state, scene.server.connects) == ("live", 6)


@pytest.mark.parametrize("code", ["rate_limited", "unavailable"])
@pytest.mark.parametrize("wait", [-5, 0, 0.001, "1e9", math.nan, math.inf, None, [7], pytest.param(10**400, id="huge"), True])
def test_an_odd_retry_after_makes_no_hot_loop_and_no_endless_wait(scene, code, wait):
    client = scene.connect()
    scene.server.script = lambda frame: refusal(code, retryAfterMs=wait) if frame["type"] == "publish" else None
    published = scene.call(lambda: client.publish("t", 1, give_up_s=math.inf))
    scene.run(60)
    assert len(scene.heard("publish")) <= 25
    scene.server.script = lambda frame: None
    scene.run(61)
    assert published[0]["seq"] == 1


def test_a_publish_returns_its_place_and_nothing_else(scene):
    client = scene.connect()
    published = [scene.call(lambda: client.publish("t", 1, id="own")) for _ in range(2)]
    scene.run(2)
    assert [answer for answer, _ in published] == [{"seq": 1, "epoch": "E1"}, {"seq": 1, "epoch": "E1", "duplicate": True}]


def test_a_refused_connection_has_the_code_of_its_refusal(scene):
    scene.server.refuses = "unauthorized"
    scene.connect()
    assert scene.refused.code == scene.refused.answer["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("given", "is_ended"), [({"code": "internal"}, True), ({"code": "unavailable", "retryable": "yes"}, True), ({}, False)]
)
def test_a_resumed_topic_that_is_refused_without_retryable_ends_and_a_refusal_without_a_code_is_none(scene, given, is_ended):
    client = scene.connect()
    client.subscribe("t", print)
    scene.run(1)
    scene.server.script = lambda frame: {"type": "error", **given} if frame["type"] == "resume" else None
    scene.server.cut()
    scene.run(10)
    assert client.state == "live" and ("t" not in scene.server.sessions[0].cursors) == is_ended
    assert [error["code"] for error in scene.errors] == ([given["code"]] if is_ended else [])
