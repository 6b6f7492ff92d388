// Runs worlds, each from a seed: node run.js CLIENT FIRST COUNT. Prints the seeds that broke a promise, and how.
"use strict";

const clock = require("./time.js");
const { Server, connectTo, chance, pick } = require("./server.js");
const { connect } = require(process.argv[2]);

const { later, random, time } = clock;
const TOPICS = ["a", "b", "c", "__proto__", "constructor", "secret"];
const ENDED = ["forbidden", "bad_request", "limit_exceeded"];
const STORM_MS = 120000; // how long the world is bad
const CALM_MS = 240000; // and how long everything has to come right

class World {
  constructor() {
    Object.assign(this, { server: new Server(), listeners: [], publishes: [], promises: [], errors: [], states: [], broken: [] });
    this.server.faults = pick([0, 0.05, 0.2, 0.4]);
    this.server.latency = pick([1, 20, 300, 1200]);
    this.server.maxTopics = pick([3, 5, 128]);
    this.server.pings = chance(0.5);
    this.isNarrow = chance(0.25);
    if (this.isNarrow) Object.assign(this.server, { bytesPerMs: 3.5, maxPayload: 64000 });
  }

  check(isTrue, sentence) { if (!isTrue) this.broken.push(`${Math.round(time())} ms: ${sentence}`); }

  token() {
    const slow = (ms, value) => new Promise((resolve) => later(ms, () => resolve(value)));
    if (!this.isStormy) return "fresh";
    return pick([() => "fresh", () => slow(500, "fresh"), () => slow(20000, "fresh"), () => slow(50, "expired"), () => "expired",
      () => new Promise(() => {}), () => { throw new Error("no token"); }, () => Promise.reject(new Error("no token"))])();
  }

  promise(name, promise, withinMs) {
    const entry = { name, made: time(), withinMs, settled: null };
    const settle = (error) => {
      entry.settled = time();
      this.check(!error || (error instanceof Error && typeof error.code === "string"), `${name} is rejected without a code: ${error}`);
    };
    this.promises.push(entry);
    promise.then(() => settle(null), settle);
    return promise;
  }

  start() {
    this.isStormy = true;
    let isBuilt = false;
    const onState = (state) => { this.check(isBuilt, "onState is called before the constructor has returned"); this.states.push(state); if (chance(0.02)) throw new Error("onState fails"); };
    const onError = (error) => { this.errors.push({ at: time(), topic: error.topic, code: error.code }); if (chance(0.02)) throw new Error("onError fails"); };
    this.client = connect(connectTo(this.server), "http://nowhere", { token: () => this.token(), onState, onError });
    isBuilt = true;
    this.backend = 0;
    for (let n = 0; n < 40; n++) later(random() * STORM_MS, () => this.act());
    for (let n = 0; n < 60; n++) later(random() * STORM_MS, () => this.server.append(pick(TOPICS), `backend${this.backend++}`, n));
    for (let n = 0; n < 6; n++) later(random() * STORM_MS, () => this.trouble());
  }

  act() {
    const kind = pick(["subscribe", "subscribe", "subscribe", "unsubscribe", "unsubscribe", "publish", "publish", "again"]);
    if (kind === "subscribe") this.subscribe(pick(TOPICS));
    else if (kind === "publish") this.publish();
    else if (this.listeners.length) {
      const listener = pick(this.listeners);
      if (!listener.isLeft) this.leave(listener);
      if (kind === "again") this.subscribe(listener.topic);
    }
  }

  subscribe(topic) {
    const place = chance(0.3) ? pick([this.client.position(topic), { since: 2, epoch: "E1" }, { since: 900, epoch: this.server.log(topic).epoch }]) : null;
    const listener = { topic, place, seen: [], made: time(), isLeft: false, giveUpMs: pick([1000, 60000, Infinity]) };
    const handler = (payload, message) => {
      this.check(!listener.isLeft, `a handler of ${topic} is called after it left`);
      listener.seen.push({ epoch: message.epoch, seq: message.seq, payload });
      if (chance(0.02)) throw new Error("the handler fails");
      if (chance(0.01)) this.leave(listener);
    };
    const onGap = (gap) => { listener.seen.push({ gap: gap.reason, from: gap.from, to: gap.to }); if (chance(0.05)) throw new Error("onGap fails"); };
    listener.unsubscribe = this.client.subscribe(topic, handler, { onGap, giveUpMs: listener.giveUpMs, ...place });
    this.promise(`ready of ${topic}`, listener.unsubscribe.ready, listener.giveUpMs).then(
      () => this.checkStands(listener),
      (error) => { if (ENDED.includes(error.code)) listener.isEnded = true; },
    );
    this.listeners.push(listener);
  }

  /** From when `ready` resolves the server has the subscription, for as long as it is wanted and the connection lasts. */
  checkStands(listener) {
    const [at, [session]] = [time(), this.server.sessions];
    later(this.server.latency * 4, () => {
      if (!this.server.sessions.has(session) || listener.isLeft) return;
      if (session.late.has(listener.topic)) return; // an old copy may have ended it, which its answer mends
      const ended = session.unsubscribed.some((each) => each.topic === listener.topic && each.at >= at);
      this.check(!ended && session.cursors.has(listener.topic), `${listener.topic} does not stand when its ready resolves`);
    });
  }

  leave(listener) {
    listener.isLeft = true;
    this.promise(`unsubscribe of ${listener.topic}`, listener.unsubscribe(), 60000).catch(() => {});
  }

  publish() {
    const [topic, id, giveUpMs] = [pick(TOPICS), `own${this.publishes.length}`, pick([500, 10000, 60000, Infinity])];
    const isLarge = chance(0.1);
    const entry = { topic, id, isLarge };
    const payload = isLarge ? "x".repeat(this.server.maxPayload + 1000) : this.isNarrow && chance(0.1) ? id.padEnd(40000) : id;
    this.publishes.push(entry);
    this.promise(`publish ${id}`, this.client.publish(topic, payload, { id, giveUpMs }), giveUpMs).then(
      (answer) => { entry.answer = answer; },
      (error) => { entry.error = error; },
    );
  }

  trouble() {
    const { server } = this;
    const name = pick(["restart", "isDown", "hangs", "swallowsConnect", "refuses", "trim", "expire", "cut", "frames", "mute", "sleep", "renumber"]);
    if (name === "restart") server.restart();
    else if (name === "trim") server.trim(pick(TOPICS));
    else if (name === "renumber") server.renumber(pick(TOPICS));
    else if (name === "mute") for (const session of server.sessions) session.isMute = true;
    else if (name === "sleep") server.socket.sleep();
    else if (name === "cut") for (const session of [...server.sessions]) session.engine.close("transport error");
    else if (name === "expire") for (const session of server.sessions) { session.hasExpired = true; session.send({ type: "error", code: "token_expired", message: "", retryable: false, graceMs: 30000 }); later(30000, () => session.hasExpired && session.engine.close("transport close")); }
    else if (name === "frames") for (const session of server.sessions) for (const frame of [null, 7, {}, { type: "event" }, { type: "event", topic: "a", seq: "x" }, { type: "error" }, { type: "ack", topic: "a" }]) session.send(frame);
    else {
      server[name] = name === "refuses" ? pick(["unauthorized", "unavailable", "token_expired"]) : true;
      if (name !== "refuses" || chance(0.5)) for (const session of [...server.sessions]) session.engine.close("transport error");
      later(random() * 60000, () => { server[name] = false; });
    }
  }

  async finish() {
    const { server } = this;
    this.isStormy = false;
    server.faults = 0;
    this.promise("last publish", this.client.publish("a", "calm", { id: "calm", giveUpMs: 100000 }), 100000).catch(() => {}); // a mute server is noticed when it is asked
    Object.assign(server, { isDown: false, hangs: chance(0.5), swallowsConnect: false, refuses: null });
    await clock.run(STORM_MS + CALM_MS);
    const connects = server.connects;
    for (const topic of TOPICS) server.append(topic, `last ${topic}`, "last");
    await clock.run(STORM_MS + CALM_MS + 30000);
    this.check(server.connects === connects, "the connection is not at rest");
    this.check(server.secondConnects === 0, "a connection is joined twice");
    this.checkPromises();
    this.checkTopics();
    for (const publish of this.publishes) this.checkPublish(publish);
    for (const listener of this.listeners) this.checkOrder(listener);
    this.client.close();
    await clock.run(time() + 1);
    this.check(clock.timersLeft() === 0, `${clock.timersLeft()} timers are left after close()`);
    this.check(this.states[0] === "connecting" && this.states[this.states.length - 1] === "closed", `states: ${this.states}`);
  }

  checkPromises() {
    for (const { name, made, withinMs, settled } of this.promises) {
      this.check(settled !== null, `${name} never settles`);
      this.check(settled === null || settled <= made + withinMs + 1, `${name} settles after ${settled - made} ms, not within ${withinMs}`);
    }
  }

  checkTopics() {
    const { server, client } = this;
    const [session] = server.sessions;
    this.check(client.state === "live" && server.sessions.size === 1, `${client.state} with ${server.sessions.size} connections`);
    const wanted = new Set();
    for (const listener of this.listeners) {
      const told = this.errors.some((error) => error.at >= listener.made && error.topic === listener.topic && ENDED.includes(error.code));
      if (listener.isLeft || listener.isEnded || told) continue;
      wanted.add(listener.topic);
      const last = listener.seen.filter((each) => each.payload !== undefined).pop();
      this.check(last && last.payload === "last", `${listener.topic} is dead in silence: ${JSON.stringify(last)}, made at ${Math.round(listener.made)}`);
    }
    if (session) for (const topic of session.cursors.keys()) this.check(wanted.has(topic), `${topic} is subscribed to, and nobody wants it`);
  }

  checkPublish({ topic, id, isLarge, answer, error }) {
    const logs = [...(this.server.everything || []), ...this.server.logs.entries()].filter(([name]) => name === topic).map(([, log]) => log);
    if (isLarge) this.check(error, `${id} is too large, and answered`);
    if (!answer) return;
    const log = logs.find((each) => each.epoch === answer.epoch);
    this.check(log && log.ids.get(id) && log.ids.get(id).seq === answer.seq, `${id} was answered and is not there`);
  }

  /** Once and in order; what is missing was told where it is missing. */
  checkOrder({ topic, place, seen }) {
    let [epoch, seq, wasTold] = place ? [place.epoch, place.since, false] : [null, null, false];
    for (const each of seen) {
      if (each.gap === "epoch_changed") wasTold = true;
      else if (each.gap === "history_gap") {
        if (seq !== null && !wasTold) this.check(each.from === seq + 1, `${topic}: a gap from ${each.from} after ${seq}`);
        seq = each.to;
      } else {
        const follows = (epoch === null || epoch === each.epoch) && each.seq === seq + 1;
        const begins = seq === 0 && each.seq === 1; // an epoch that nobody told of, of which nothing can be missing
        this.check(seq === null || follows || wasTold || begins, `${topic}: ${each.seq} of ${each.epoch} after ${seq} of ${epoch}`);
        if (wasTold && epoch !== each.epoch && seq !== null) this.check(each.seq === 1 || seen.some((gap) => gap.to === each.seq - 1), `${topic}: ${each.epoch} begins with ${each.seq}`);
        [epoch, seq, wasTold] = [each.epoch, each.seq, false];
      }
    }
  }
}

(async () => {
  const [first, count] = process.argv.slice(3).map(Number);
  console.error = () => {}; // where handlers of errors fail
  for (let seed = first; seed < first + count; seed++) {
    clock.seed(seed + 1);
    const world = new World();
    world.start();
    try {
      await clock.run(STORM_MS);
      await world.finish();
    } catch (error) {
      world.broken.push(error.stack);
    }
    if (world.broken.length) console.log(JSON.stringify({ seed, broken: [...new Set(world.broken)].slice(0, 5) }));
  }
  process.exit(0);
})();
