"""Wrong input in right packets, at a real socket: each is told with its code, nothing of it happens, and nobody else notices."""

import json

import pytest
import requests

from tests.apps import bearer, error_of, token

ADMIN = token("root", "admin")
DEEP = '{"a":' * 2000 + "1" + "}" * 2000
JOIN = f'{{"token":"{ADMIN}","resume":%s}}'


@pytest.fixture(scope="module")
def app(unlimited_app):
    return unlimited_app


def next_frame(connection):
    """Of the next event or callback."""
    text = connection.recv()
    said = json.loads(text[text.index("[") :])
    return said[1] if text.startswith("42/realtime,") else said[0]


def assert_is_error(frame, codes):
    assert frame["type"] == "error" and frame["code"] in codes
    assert frame["retryable"] is False and frame["message"]


def assert_goes_on(connection):
    connection.send('42/realtime,7["ping"]')
    assert connection.recv().startswith('43/realtime,7[{"ts":')


BAD_FRAMES = [
    '{"type":"auth"}', '{"type":"auth","token":5}', '{"type":"auth","token":""}', '{"type":"auth","token":["x"]}',
    '{"type":"auth","token":"x","id":{}}', '{"type":"auth","token":"\\ud83d"}', '{"type":"auth","token":"\\u0000"}',
    '{"type":"subscribe","topic":["t"]}', '{"type":"subscribe","topic":"t","since":1.5}', '{"type":"subscribe","topic":"t","since":true}',
    '{"type":"subscribe","topic":"t","since":-1}', '{"type":"subscribe","topic":"t","since":9007199254740992}',
    '{"type":"subscribe","topic":"t","since":99999999999999999999999}', '{"type":"subscribe","topic":"t","epoch":7}',
    '{"type":"subscribe","topic":"t","epoch":""}', '{"type":"subscribe","topic":"t","mode":["all"]}',
    '{"type":"subscribe","topic":"t","topic":"a b"}',
    '{"type":"publish","messages":[{"topic":"bad","payload":1}]}', '{"type":"publish","topic":"bad","id":"m"}',
    '{"type":"publish","topic":"bad","payload":1}', '{"type":"publish","topic":"bad","id":5,"payload":1}',
    '{"type":"publish","topic":"bad\\ud83d","id":"m","payload":1}',
    '{"type":"publish","topic":"bad","id":"m","seq":"1","payload":1}',
    '{"type":"publish","topic":"bad","id":"m","payload":NaN}', '{"type":"publish","topic":"bad","id":"m","payload":[Infinity]}',
    '{"type":"publish","topic":"bad","id":"m","payload":1e999}', f'{{"type":"publish","topic":"bad","id":"m","payload":{DEEP}}}',
    '{"type":"publish","topic":"bad","id":"m","payload":' + "[" * 300 + "]" * 300 + "}",
    '{"type":"ack"}', '{"type":"ack","topic":"t"}', '{"type":"ack","topic":"t","seq":1}', '{"type":"ack","topic":"t","seq":-1}',
    '{"type":"ack","acks":{}}', '{"type":"ack","acks":[]}', '{"type":"ack","acks":{"t":"1"}}', '{"type":"ack","acks":{"calm":1,"never":1}}',
    '{"type":"ack","id":"never-sent"}', '{"type":"ack","id":["x"]}',
    '{"type":["subscribe"]}', '{"type":"__class__"}', '{"type":null}', "null", "[]", "1", '"text"', "{", "[", DEEP,
]  # fmt: skip


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=lambda frame: frame[:60])
def test_a_wrong_frame_is_told_with_and_without_a_callback_and_the_connection_goes_on(app, raw, bystander, frame):
    connection = raw()
    for head in ('42/realtime,["message",', '42/realtime,9["message",'):
        connection.send(f"{head}{frame}]")
        assert_is_error(next_frame(connection), ("bad_request", "unknown_topic", "bad_ack", "unauthorized"))
    assert_goes_on(connection)
    connection.send('42/realtime,["message",{"type":"subscribe","topic":"bad"}]')
    assert next_frame(connection)["seq"] == 0


BAD_ATTACHMENTS = [
    ('451-/realtime,["message",{"type":"publish","topic":"bad","id":"b","payload":{"_placeholder":true,"num":0}}]', [b"\xff"]),
    ('451-/realtime,["message",{"type":"publish","topic":"bad","id":"b","payload":{"_placeholder":true,"num":-1}}]', [b"\xff"]),
    ('451-/realtime,["message",{"type":"publish","topic":{"_placeholder":true,"num":0},"id":"b","payload":1}]', [b"bad"]),
    ('451-/realtime,["message",{"type":"auth","token":{"_placeholder":true,"num":0}}]', [ADMIN.encode()]),
    ('451-/realtime,["message",{"_placeholder":true,"num":0}]', [b""]),
    ('452-/realtime,["message",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', [b"x", b"y"]),
]


@pytest.mark.parametrize(("packet", "attachments"), BAD_ATTACHMENTS)
def test_binary_is_refused_as_it_is_no_json_and_the_connection_goes_on(raw, bystander, packet, attachments):
    connection = raw()
    connection.send(packet)
    for attachment in attachments:
        connection.send_binary(attachment)
    assert_is_error(next_frame(connection), ("bad_request",))
    assert_goes_on(connection)


@pytest.mark.parametrize("resume", ["5", '"x"', "[[]]", "true"], ids=lambda resume: resume[:20])
def test_a_resume_that_is_none_is_told_once_and_the_connection_stands(raw, bystander, resume):
    connection = raw(JOIN % resume)
    assert_is_error(next_frame(connection), ("bad_request",))
    assert_goes_on(connection)


@pytest.mark.parametrize(("topics", "named", "rest"), [(129, 1, 0), (256, 128, 0), (3000, 128, 3000 - 256)])
def test_a_resume_of_too_many_topics_resumes_those_that_are_allowed_and_names_the_others(raw, bystander, topics, named, rest):
    connection = raw(JOIN % json.dumps({f"t{number}": {} for number in range(topics)}))
    frames = [next_frame(connection) for _ in range(128 + named + bool(rest))]
    assert [(frame["type"], frame["topic"]) for frame in frames[:128]] == [("ack", f"t{number}") for number in range(128)]
    assert [(frame["code"], frame["topic"]) for frame in frames[128 : 128 + named]] == [
        ("limit_exceeded", f"t{128 + number}") for number in range(named)
    ]
    assert not rest or str(rest) in frames[-1]["message"]
    assert_goes_on(connection)


BAD_POSITIONS = [
    "null", "1", "[]", '{"since":"1"}', '{"since":1e3}', '{"since":-1}', '{"since":9007199254740992}', '{"since":true}',
    '{"since":1,"epoch":5}', '{"since":1,"epoch":{}}', '{"since":1,"epoch":""}', '{"ack":"yes"}', '{"mode":["all"]}',
]  # fmt: skip


@pytest.mark.parametrize("position", BAD_POSITIONS)
def test_a_wrong_position_is_told_with_its_topic_and_costs_no_other(raw, bystander, position):
    connection = raw(JOIN % f'{{"first":{{}},"wrong":{position},"a b":{{}},"last":{{}}}}')
    frames = [next_frame(connection) for _ in range(4)]
    assert [(frame["type"], frame.get("topic")) for frame in frames] == [
        ("ack", "first"),
        ("error", "wrong"),
        ("error", None),
        ("ack", "last"),
    ]
    assert_is_error(frames[1], ("bad_request",))
    assert_goes_on(connection)


@pytest.mark.parametrize("namespace", ["/realtime", "/"])
@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ("5", "unauthorized"), ('"x"', "unauthorized"), ("[]", "unauthorized"), ('{"token":{}}', "unauthorized"),
        ('{"token":"\\ud83d"}', "unauthorized"), ('{"token":"\\u0000"}', "unauthorized"), ('{"token":"a b\\n"}', "unauthorized"),
        ('{"token":NaN}', "bad_request"), ("[[[", "bad_request"), (DEEP, "bad_request"),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_a_connect_that_brings_nonsense_is_refused_in_the_shape_of_the_catalogue(raw, bystander, namespace, auth, code):
    connection = raw(auth=None)
    prefix = "" if namespace == "/" else f"{namespace},"
    connection.send(f"40{prefix}{auth}")
    text = connection.recv()
    assert text.startswith(f"44{prefix}")
    error = json.loads(text[text.index("{") :])["data"]
    assert (error["code"], error["retryable"]) == (code, False) and error["message"]
    connection.send(f'40{prefix}{{"token":"{ADMIN}"}}')
    assert connection.recv().startswith(f"40{prefix}{{")


BAD_BATCHES = [
    {"messages": []}, {"messages": {}}, {"messages": None}, {"messages": [1]}, {"messages": [[]]}, {"messages": [{}]},
    {"messages": [{"topic": "bad", "payload": 1}, {"topic": "a b", "payload": 1}]},
    {"messages": [{"topic": "bad", "payload": 1}, {"topic": "bad"}]},
    {"messages": [{"topic": "bad", "payload": 1}, {"topic": "bad", "payload": 1, "id": 5}]},
    {"messages": [{"topic": "bad", "payload": 1}, {"topic": "bad", "payload": "x" * 70_000}]},
    {"messages": [{"topic": "bad", "payload": 1}] * 1001},
]  # fmt: skip


@pytest.mark.parametrize(
    "body", [*map(json.dumps, BAD_BATCHES), '{"messages":[{"topic":"bad","payload":NaN}]}', DEEP], ids=lambda body: body[:50]
)
def test_a_batch_with_one_wrong_message_publishes_none(app, raw, bystander, body):
    url = f"{app.url}/api/realtime/publish"
    response = requests.post(url, data=body, headers={"Content-Type": "application/json", **bearer("root", "admin")}, timeout=5)
    assert response.status_code in (400, 413) and error_of(response)["retryable"] is False
    connection = raw()
    connection.send('42/realtime,["message",{"type":"subscribe","topic":"bad"}]')
    assert next_frame(connection)["seq"] == 0
