"""The client for browsers on one bad day at a time, in virtual time: each test is something that was reported of it, or its like."""

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SDK = REPOSITORY / "app" / "sdk" / "realtime.js"
SIMULATION = Path(__file__).parent / "client_simulation"

PRELUDE = """
const clock = require(process.argv[1] + "/time.js");
const { Server, connectTo, refusal } = require(process.argv[1] + "/server.js");
const { connect } = require(process.argv[2]);
const given = JSON.parse(process.argv[3]);
clock.seed(1);
const server = new Server();
const states = [], errors = [];
const open = (options = {}) => connect(connectTo(server), "http://nowhere",
  { token: "token", onState: (state) => states.push(state), onError: (error) => errors.push(error), ...options });
const run = (seconds) => clock.run(clock.time() + 1000 * seconds);
const heard = (type) => server.heard.filter((frame) => frame.type === type);
const outcome = (promise) => { // [what came of it, when in seconds]
  const result = [];
  const settle = (value) => result.push(value, Math.round(clock.time() / 1000));
  promise.then((value) => settle(value === undefined ? "done" : value), (error) => settle(error.code));
  return result;
};
const session = () => [...server.sessions][0];
const cut = () => [...server.sessions].forEach((each) => each.engine.close("transport error"));
const refuse = (kind, codes, more = {}) => {
  const left = [...codes];
  server.script = (frame) => frame.type === kind && left.length ? refusal(left.shift(), more) : null;
};
const print = (value) => console.log(JSON.stringify(value));
"""


@pytest.fixture
def run(node):
    """Runs the body and returns what it printed last."""

    def run(body, **given):
        script = f"{PRELUDE}(async () => {{ {body}; process.exit(0); }})();"
        return json.loads(node.run(script, SIMULATION, SDK, json.dumps(given)).splitlines()[-1])

    return run


@pytest.mark.parametrize("code", ["rate_limited", "unavailable", "internal"])
@pytest.mark.parametrize("kind", ["subscribe", "resume", "publish", "unsubscribe"])
def test_a_request_that_is_refused_for_now_is_sent_again_when_the_server_says(run, code, kind):
    result = run(
        """
        const client = open();
        await run(1);
        refuse(given.kind, [given.code, given.code], { retryAfterMs: 2000 });
        const seen = [];
        const stop = client.subscribe("t", (payload) => seen.push(payload));
        const ready = outcome(stop.ready);
        if (given.kind === "resume") cut();
        await run(10);
        const published = outcome(client.publish("t", 1));
        await run(10);
        const left = outcome(stop());
        await run(10);
        const requests = ["subscribe", "publish", "unsubscribe"].map((each) => heard(each).length);
        print([ready.length, published[0].seq, seen, left[0], [...session().cursors.keys()], requests]);
        """,
        kind=kind,
        code=code,
    )
    requests = [3 if kind == each else 1 for each in ("subscribe", "publish", "unsubscribe")]
    assert result == [2, 1, [1], "done", [], requests]


@pytest.mark.parametrize("kind", ["subscribe", "publish"])
def test_an_expired_token_is_renewed_and_the_request_sent_again(run, kind):
    result = run(
        """
        const client = open({ token: () => "fresh" });
        await run(1);
        refuse(given.kind, ["token_expired"]);
        const ready = outcome(client.subscribe("t", () => {}).ready);
        const published = outcome(client.publish("t", 1));
        await run(5);
        print([heard("auth").length, ready[0].since, published[0].seq]);
        """,
        kind=kind,
    )
    assert result[0] == 1 and result[1] in (0, 1) and result[2] == 1


def test_a_token_that_comes_after_the_connection_has_changed_is_not_sent_on_the_new_one(run):
    assert run("""
        let asked = 0;
        const token = () => { const mine = ++asked; return new Promise((resolve) => clock.later(2000, () => resolve(`token ${mine}`))); };
        const client = open({ token });
        await run(1);
        server.socket.io.engine.close("transport error"); // while the token is being fetched
        await run(10);
        session().send(refusal("token_expired"));
        await run(1);
        cut(); // while another one is being fetched
        await run(10);
        print([server.secondConnects, heard("connect").map((each) => each.token), heard("auth"), client.state]);
    """) == [0, ["token 1", "token 2"], [], "live"]


def test_a_token_function_that_hangs_is_asked_again_and_one_that_fails_too(run):
    assert run("""
        const fail = () => { throw new Error("no"); };
        const tokens = [() => new Promise(() => {}), fail, async () => fail(), () => "token"];
        const client = open({ token: () => tokens.shift()() });
        await run(90);
        print([client.state, heard("connect").length, errors.length]);
    """) == ["live", 1, 3]


@pytest.mark.parametrize("limit", [3, 128])
def test_a_refused_topic_costs_the_others_nothing_at_the_next_connection(run, limit):
    topics = ["a", "b", "secret", "c", "d"]
    outcomes, seen, told = run(
        """
        server.maxTopics = given.limit;
        const client = open();
        await run(1);
        const seen = [];
        const handler = (payload, message) => seen.push(message.topic);
        const outcomes = given.topics.map((topic) => outcome(client.subscribe(topic, handler).ready));
        await run(5);
        for (let n = 0; n < 2; n++) { cut(); await run(10); }
        for (const topic of given.topics) server.append(topic, topic, 1);
        await run(5);
        print([outcomes.map((each) => typeof each[0] === "string" ? each[0] : "stands"), seen, errors.map((each) => each.topic)]);
        """,
        limit=limit,
        topics=topics,
    )
    assert outcomes == ["stands", "stands", "forbidden", "stands", "stands" if limit > 3 else "limit_exceeded"]
    assert seen == ["a", "b", "c", "d"][: 3 if limit == 3 else 4] and "secret" in told


def test_more_topics_than_may_be_resumed_are_asked_for_one_by_one(run):
    assert run("""
        server.maxTopics = 3;
        const client = open();
        const outcomes = [0, 1, 2, 3, 4].map((n) => outcome(client.subscribe(`t${n}`, () => {}).ready));
        await run(20);
        print([outcomes.map((each) => each[0].since === 0 || each[0]), session().cursors.size, errors.map((each) => each.topic)]);
    """) == [[True, True, True, "limit_exceeded", "limit_exceeded"], 3, [None, "t3", "t4"]]


def test_a_websocket_that_hangs_is_followed_by_polling(run):
    assert run("""
        server.hangs = true;
        const client = open();
        await run(15);
        print([client.state, server.socket.io.opts.transports]);
    """) == ["live", ["polling", "websocket"]]


def test_a_connection_on_which_the_connect_packet_is_not_answered_is_left_for_the_other_transport(run):
    assert run("""
        server.swallowsConnect = true;
        const client = open();
        await run(10);
        server.swallowsConnect = false;
        await run(5);
        print([client.state, server.socket.io.opts.transports[0]]);
    """) == ["live", "polling"]


def test_a_round_trip_of_several_seconds_still_connects_and_gets_answers(run):
    assert run("""
        server.latency = 3000;
        const client = open();
        await run(40);
        const [published, ready] = [outcome(client.publish("t", 1)), outcome(client.subscribe("t", () => {}).ready)];
        await run(30);
        print([published[0].seq, ready.length, server.connects]);
    """) == [1, 2, 1]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ('"x".repeat(3000)', "payload_too_large"),
        ('["é".repeat(1500)]', "payload_too_large"),
        ("new ArrayBuffer(3000)", "bad_request"),
        ("{ deep: [new Uint8Array(9)] }", "bad_request"),
        ("Buffer.from('x')", "bad_request"),
        ("10n", "bad_request"),
        ("(() => { const own = {}; own.own = own; return own; })()", "bad_request"),
    ],
)
def test_a_payload_that_cannot_be_taken_fails_at_once_and_costs_no_connection(run, payload, code):
    assert run(f"""
        const client = open();
        const early = outcome(client.publish("t", {payload})); // before the handshake has named a maximum
        await run(1);
        const published = outcome(client.publish("t", {payload}));
        await run(1);
        print([early[0], published[0], server.connects, heard("publish").length]);
    """) == [code, code, 1, 0]


def test_a_payload_that_is_changed_while_it_waits_is_sent_as_it_was_given(run):
    assert run("""
        const client = open();
        const payload = { n: 1, ["__proto__"]: { text: "own" } };
        const published = outcome(client.publish("t", payload));
        payload.n = 2;
        await run(5);
        print([published[0].seq, server.log("t").messages.get(1).payload.n]);
    """) == [1, 1]


def test_what_waits_while_offline_is_given_up_in_time(run):
    assert run("""
        const client = open();
        await run(1);
        server.isDown = true;
        cut();
        await run(1);
        const ready = client.subscribe("t", () => {}, { giveUpMs: 7000 }).ready;
        const waiting = [client.publish("t", 1, { giveUpMs: 3000 }), ready].map(outcome);
        const patient = outcome(client.publish("t", 2, { giveUpMs: Infinity }));
        await run(100);
        const isPending = patient.length === 0;
        server.isDown = false;
        await run(20);
        print([waiting, isPending, patient[0].seq, session().cursors.has("t")]);
    """) == [[["unavailable", 5], ["unavailable", 9]], True, 1, True]


@pytest.mark.parametrize("options", ["{ reconnectionAttempts: 3 }", "{ reconnection: false }"])
def test_when_all_attempts_are_used_up_it_is_closed_and_everything_fails(run, options):
    result = run(f"""
        const client = open({options});
        await run(1);
        const stop = client.subscribe("t", () => {{}});
        await run(1);
        server.isDown = true;
        const patient = {{ giveUpMs: Infinity }};
        const waiting = [client.subscribe("u", () => {{}}, patient).ready, client.publish("t", 1, patient)].map(outcome);
        cut();
        await run(60);
        waiting.push(outcome(client.publish("t", 1)), outcome(client.subscribe("v", () => {{}}).ready), outcome(stop()));
        await run(1);
        print([waiting.map((each) => each[0]), states]);
    """)
    assert result == [["unavailable"] * 4 + ["done"], ["connecting", "live", "offline", "closed"]]


def test_two_subscriptions_to_one_topic_both_get_it_and_one_may_leave(run):
    assert run("""
        const client = open();
        await run(1);
        const [one, other] = [[], []];
        const stop = client.subscribe("t", (payload) => one.push(payload));
        client.subscribe("t", (payload) => other.push(payload));
        await run(1);
        server.append("t", "1", 1);
        await run(1);
        stop();
        server.append("t", "2", 2);
        await run(1);
        print([one, other, heard("subscribe").length, heard("unsubscribe").length]);
    """) == [[1], [1, 2], 1, 0]


def test_a_second_subscription_may_begin_earlier_than_the_first(run):
    assert run("""
        const client = open();
        await run(1);
        const [one, other] = [[], []];
        client.subscribe("t", (payload) => one.push(payload));
        await run(1);
        for (const n of [1, 2, 3]) server.append("t", `${n}`, n);
        await run(1);
        client.subscribe("t", (payload) => other.push(payload), { since: 0, epoch: server.log("t").epoch });
        await run(1);
        server.append("t", "4", 4);
        await run(1);
        print([one, other]);
    """) == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_unsubscribed_and_subscribed_on_a_slow_link_it_is_ready_when_the_new_one_stands(run):
    assert run("""
        server.latency = 1000;
        const client = open();
        await run(20);
        const stop = client.subscribe("t", () => {});
        await run(10);
        const seen = [];
        const left = outcome(stop());
        const ready = outcome(client.subscribe("t", (payload) => seen.push(payload)).ready);
        await run(0.1);
        server.append("t", "old", "meant for the old one");
        while (!ready.length) await run(0.1);
        const stands = left[0] === "done" && session().unsubscribed.length === 1 && session().cursors.has("t");
        server.append("t", "new", "new");
        await run(5);
        print([stands, seen]);
    """) == [True, ["new"]]


@pytest.mark.parametrize("topic", ["__proto__", "constructor", "toString"])
def test_a_topic_may_have_the_name_of_what_every_object_has(run, topic):
    resumed, acks, seen = run(
        """
        const client = open();
        await run(1);
        const seen = [];
        client.subscribe(given.topic, (payload) => seen.push(payload));
        await run(1);
        server.append(given.topic, "1", 1);
        await run(1);
        cut();
        await run(3);
        server.append(given.topic, "2", 2);
        await run(1);
        print([Object.entries(heard("connect")[1].resume), heard("ack").map((frame) => Object.entries(frame.acks)), seen]);
        """,
        topic=topic,
    )
    assert resumed[0][0] == topic and resumed[0][1]["since"] == 1
    assert acks == [[[topic, 1]], [[topic, 2]]] and seen == [1, 2]


def test_a_topic_that_is_no_name_and_a_position_that_is_none_are_refused_at_once(run):
    assert run("""
        const client = open();
        await run(1);
        const asked = ["", "x".repeat(256), null, 7].map((topic) => [topic, {}]);
        asked.push(["t", { since: -1 }], ["t", { since: 1n }], ["t", { since: 1, epoch: 7 }]);
        const outcomes = asked.map(([topic, place]) => outcome(client.subscribe(topic, () => {}, place).ready));
        await run(1);
        print([outcomes.map((each) => each[0]), heard("subscribe").length]);
    """) == [["bad_request"] * 7, 0]


def test_a_refusal_is_told_as_that_and_tried_again_where_the_token_can_be_another(run):
    assert run("""
        server.refuses = "unauthorized";
        const client = open({ token: () => "token" });
        const ready = outcome(client.subscribe("t", () => {}, { giveUpMs: 2000 }).ready);
        await run(5);
        const told = [...new Set(states)];
        server.refuses = null;
        await run(15);
        print([told, ready, client.state, [...session().cursors.keys()]]);
    """) == [["connecting", "refused"], ["unauthorized", 2], "live", ["t"]]


def test_on_state_is_not_called_before_the_constructor_has_returned(run):
    assert run("""
        const seen = [];
        let client = null;
        const onState = (state) => seen.push([state, client !== null]);
        client = open({ onState });
        client.close();
        await run(1);
        print(seen);
    """) == [["connecting", True], ["closed", True]]


def test_a_socketio_client_that_is_too_old_is_named_at_once(run):
    old, none = run("""
        const said = (act) => { try { act(); return "nothing"; } catch (error) { return error.message; } };
        let disconnected = 0;
        const io = () => ({ on() {}, io: { on() {} }, disconnect() { disconnected++; } });
        print([said(() => connect(io, "http://nowhere")) + disconnected, said(() => connect(undefined, "http://nowhere"))]);
    """)
    assert old == "Switchyard needs socket.io-client 4.4 or newer; the one that was given is older.1"
    assert "io is the function of socket.io-client" in none


def test_a_refusal_on_a_connection_that_stands_is_followed_by_a_new_one(run):
    """The stock client takes itself for connected for ever, and is not."""
    assert run("""
        const client = open();
        const seen = [];
        client.subscribe("t", (payload) => seen.push(payload));
        await run(2);
        server.socket._refused(refusal("unavailable"));
        await run(5);
        server.append("t", "1", 1);
        await run(1);
        print([client.state, seen]);
    """) == ["live", [1]]


def test_what_the_stock_client_kept_of_the_last_connection_is_not_sent_on_the_next(run):
    assert run("""
        const client = open();
        const stop = client.subscribe("t", () => {});
        await run(2);
        server.socket.sleep(); // it keeps what is emitted until it notices that its connection is gone
        stop();
        const seen = [];
        client.subscribe("t", (payload) => seen.push(payload));
        await run(10);
        server.append("t", "1", 1);
        await run(1);
        print([heard("unsubscribe").length, seen]);
    """) == [0, [1]]


def test_a_server_that_answers_nothing_any_more_is_left_for_a_new_connection(run):
    assert run("""
        const client = open();
        await run(1);
        session().isMute = true;
        const published = outcome(client.publish("t", 1));
        await run(40);
        print([published[0].seq, server.connects, states.includes("offline")]);
    """) == [1, 2, True]


def test_a_message_that_the_server_will_not_have_costs_few_connections(run):
    """Somewhere between is a limit that the handshake does not name."""
    connects, code = run("""
        const client = open();
        await run(1);
        session().engine._maxPayload = 1e6;
        client._maxFrameBytes = 1e6;
        Object.defineProperty(client, "_maxFrameBytes", { get: () => 1e6, set: () => {} });
        const published = outcome(client.publish("t", "x".repeat(3000)));
        await run(61);
        print([server.connects, published[0]]);
    """)
    assert connects <= 15 and code == "unavailable"


def test_functions_of_the_callers_that_throw_change_nothing(run):
    assert run("""
        const fail = () => { throw new Error("no"); };
        console.error = () => {};
        const client = open({ onState: fail, onError: fail });
        const seen = [];
        const stop = client.subscribe("t", (payload) => { seen.push(payload); fail(); }, { onGap: fail });
        await run(1);
        server.append("t", "1", 1);
        server.append("t", "2", 2);
        await run(1);
        server.restart();
        await run(5);
        server.append("t", "3", 3);
        await run(1);
        print([client.state, seen]);
    """) == ["live", [1, 2, 3]]


@pytest.mark.parametrize(("sizes", "bytes_per_ms", "within_s"), [([62000], 3.5, 20), ([30000], 1.2, 28), ([62000, 62000, 62000], 3.5, 58)])
def test_on_a_narrow_link_a_payload_that_is_still_leaving_is_waited_for_and_sent_once(run, sizes, bytes_per_ms, within_s):
    published, copies, connects, states = run(
        """
        Object.assign(server, { bytesPerMs: given.rate, maxPayload: 64000, pings: true });
        const client = open();
        await run(1);
        const published = given.sizes.map((size) => outcome(client.publish("t", "x".repeat(size))));
        const after = outcome(client.publish("t", "small"));
        await run(70);
        print([[...published, after].map(([answer, at]) => [answer.seq, at]), heard("publish").length, server.connects, states]);
        """,
        sizes=sizes,
        rate=bytes_per_ms,
    )
    assert sorted(seq for seq, _ in published) == list(range(1, len(sizes) + 2)) and max(at for _, at in published) <= within_s
    assert (copies, connects, states) == (len(sizes) + 1, 1, ["connecting", "live"])


def test_on_a_narrow_link_an_answer_behind_a_large_message_is_waited_for(run):
    published, copies, connects, seen = run("""
        Object.assign(server, { bytesPerMs: 3.5, maxPayload: 64000, pings: true });
        const client = open();
        let seen = 0;
        client.subscribe("t", () => seen++);
        await run(1);
        for (const id of ["1", "2", "3"]) server.append("t", id, "x".repeat(62000));
        const published = outcome(client.publish("u", 1));
        await run(58);
        print([published[0].seq, heard("publish").length, server.connects, seen]);
    """)
    assert (published, copies, connects, seen) == (1, 1, 1, 3)


def test_many_topics_are_resumed_over_a_narrow_link(run):
    assert run("""
        Object.assign(server, { bytesPerMs: 2, maxPayload: 64000, maxTopics: 128 });
        const client = open();
        for (let n = 0; n < 128; n++) client.subscribe(`${n}`.padEnd(255, "x"), () => {});
        await run(90);
        cut();
        await run(90);
        print([client.state, server.connects, heard("connect").length, session().cursors.size]);
    """) == ["live", 2, 2, 128]


def test_a_server_that_pings_and_answers_nothing_is_left_for_a_new_connection(run):
    assert run("""
        server.pings = true;
        const client = open();
        await run(1);
        session().isMute = true;
        const published = outcome(client.publish("t", 1, { giveUpMs: 100000 }));
        await run(90);
        print([published[0].seq, server.connects]);
    """) == [1, 2]


def test_a_request_that_the_server_lost_is_sent_again_where_a_later_one_is_answered(run):
    assert run("""
        const client = open();
        await run(1);
        const joined = session();
        joined.receive = () => { delete joined.receive; }; // loses the first frame
        const published = [1, 2].map((payload) => outcome(client.publish("t", payload)));
        await run(10);
        print([published.map((each) => each[0].seq), server.connects]);
    """) == [[2, 1], 1]


@pytest.mark.parametrize("part", ["namespace", "transport"])
def test_a_server_that_accepts_and_closes_at_once_is_tried_more_and_more_rarely(run, part):
    connects, later, state = run(
        """
        server.closesAtOnce = given.part;
        const client = open();
        await run(60);
        const connects = server.connects;
        await run(60);
        const later = server.connects - connects;
        server.closesAtOnce = null;
        await run(30);
        print([connects, later, client.state]);
        """,
        part=part,
    )
    assert connects <= 16 and later <= 13 and state == "live"


def test_a_connection_that_stood_for_a_while_is_followed_by_a_new_one_soon(run):
    assert run("""
        const client = open();
        for (let n = 0; n < 5; n++) { await run(10); cut(); }
        await run(1);
        print([client.state, server.connects]);
    """) == ["live", 6]


@pytest.mark.parametrize("code", ["rate_limited", "unavailable"])
@pytest.mark.parametrize("wait", ["-5", "0", "0.001", "'1e9'", "NaN", "Infinity", "null", "[7]", "1e400", "true"])
def test_an_odd_retry_after_makes_no_hot_loop_and_no_endless_wait(run, code, wait):
    frames, answered = run(f"""
        const client = open();
        await run(1);
        let left = 1e9;
        server.script = (frame) => left-- > 0 && frame.type === "publish" ? refusal("{code}", {{ retryAfterMs: {wait} }}) : null;
        const published = outcome(client.publish("t", 1, {{ giveUpMs: Infinity }}));
        await run(60);
        const frames = heard("publish").length;
        left = 0;
        await run(61);
        print([frames, published[0] && published[0].seq]);
    """)
    assert frames <= 25 and answered == 1


def test_a_huge_retry_after_is_capped(run):
    assert (
        run("""
        const client = open();
        await run(1);
        refuse("publish", ["unavailable"], { retryAfterMs: 1e300 });
        const published = outcome(client.publish("t", 1, { giveUpMs: Infinity }));
        await run(92);
        print(published[0].seq);
    """)
        == 1
    )


def test_a_publish_resolves_to_its_place_and_nothing_else(run):
    assert run("""
        const client = open();
        const published = [1, 2].map(() => outcome(client.publish("t", 1, { id: "own" })));
        await run(2);
        print(published.map((each) => each[0]));
    """) == [{"seq": 1, "epoch": "E1"}, {"seq": 1, "epoch": "E1", "duplicate": True}]


@pytest.mark.parametrize(
    ("refusal", "is_ended"), [('{ code: "internal" }', True), ('{ code: "unavailable", retryable: "yes" }', True), ("{}", False)]
)
def test_a_resumed_topic_that_is_refused_without_retryable_ends_and_a_refusal_without_a_code_is_none(run, refusal, is_ended):
    code, told, state = run(f"""
        server.script = (frame) => frame.type === "resume" ? {{ type: "error", ...{refusal} }} : null;
        const client = open();
        const ready = outcome(client.subscribe("t", () => {{}}).ready);
        await run(10);
        print([ready[0].since === 0 ? "stands" : ready[0], errors.map((each) => each.code), client.state]);
    """)
    assert state == "live" and (code == "stands") != is_ended
    assert told == ([code] if is_ended else [])
