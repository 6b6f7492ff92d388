// A server that keeps to the protocol and has bad days, and the network and stock socket.io-client between it and a client.
"use strict";

const { later, random, time } = require("./time.js");

const chance = (part) => random() < part;
const pick = (values) => values[Math.floor(random() * values.length)];

/** The logs of all topics, which sessions subscribe to. `faults` is how bad the day is, from 0 to 1. */
class Server {
  constructor() {
    Object.assign(this, { logs: new Map(), sessions: new Set(), faults: 0, epochs: 0, maxTopics: 5, isDown: false, hangs: false, latency: 5, refuses: null });
    Object.assign(this, { connects: 0, secondConnects: 0, swallowsConnect: false, heard: [] });
    Object.assign(this, { bytesPerMs: Infinity, maxPayload: 2000, pings: false, closesAtOnce: null });
    this.script = () => null; // the refusal that this frame gets
  }

  log(topic) {
    if (!this.logs.has(topic)) this.logs.set(topic, { epoch: `E${++this.epochs}`, head: 0, messages: new Map(), ids: new Map() });
    return this.logs.get(topic);
  }

  append(topic, id, payload) {
    const log = this.log(topic);
    if (log.ids.has(id)) return { ...log.ids.get(id), duplicate: true };
    const place = { topic, seq: ++log.head, epoch: log.epoch };
    log.ids.set(id, place);
    log.messages.set(place.seq, { payload, id, seq: place.seq, ts: time() });
    for (const session of this.sessions) session.pumpTopic(topic);
    return place;
  }

  trim(topic) {
    const log = this.log(topic);
    for (const seq of [...log.messages.keys()]) if (seq <= log.head - 3) log.messages.delete(seq);
  }

  restart() {
    this.everything = [...(this.everything || []), ...this.logs.entries()];
    this.logs.clear();
    for (const session of [...this.sessions]) session.engine.close("transport close");
  }

  /** The topic's numbering begins anew under a running connection, and nothing says so. */
  renumber(topic) {
    this.everything = [...(this.everything || []), [topic, this.log(topic)]];
    this.logs.delete(topic);
    for (const session of this.sessions) if (session.cursors.has(topic)) session.cursors.set(topic, { seq: 0 });
  }
}

/** What a server does with one connection. Frames go out in order; answers to publishes may overtake one another. */
class Session {
  constructor(server, engine) {
    Object.assign(this, { server, engine, cursors: new Map(), unsubscribed: [], late: new Set(), isJoined: false, hasExpired: false, isMute: false });
  }

  send(message, isOrdered = true) {
    this.engine.toClient(() => this.engine.socket._fire("message", message), isOrdered, message);
  }

  pumpTopic(topic) {
    const [log, cursor] = [this.server.log(topic), this.cursors.get(topic)];
    while (cursor && cursor.seq < log.head) {
      const first = Math.min(...[...log.messages.keys(), log.head].filter((seq) => seq > cursor.seq));
      if (first > cursor.seq + 1) this.send({ type: "error", code: "history_gap", message: "", retryable: false, topic, from: cursor.seq + 1, to: first - 1 });
      cursor.seq = first;
      const frame = { type: "event", topic, epoch: log.epoch, ...log.messages.get(first) };
      for (let n = chance(this.server.faults / 4) ? 2 : 1; n > 0; n--) this.send(frame);
    }
  }

  subscribe({ topic, since, epoch }, answer) {
    const { server } = this;
    if (topic === "secret") return answer(refusal("forbidden", { topic }));
    if (!this.cursors.has(topic) && this.cursors.size >= server.maxTopics) return answer(refusal("limit_exceeded", { topic }));
    const log = server.log(topic);
    if (since === undefined) {
      if (!this.cursors.has(topic)) this.cursors.set(topic, { seq: log.head });
      answer({ type: "ack", ok: true, topic, seq: this.cursors.get(topic).seq, epoch: log.epoch });
    } else {
      const isOther = (epoch && epoch !== log.epoch) || since > log.head;
      this.cursors.set(topic, { seq: isOther ? 0 : since });
      answer({ type: "ack", ok: true, topic, seq: isOther ? 0 : since, epoch: log.epoch, head: log.head, recovered: !isOther, ...(isOther ? { reason: "epoch_changed" } : {}) });
      if (isOther) this.send({ type: "error", code: "epoch_changed", message: "", retryable: false, topic, epoch: log.epoch });
    }
    this.pumpTopic(topic);
  }

  unsubscribe(topic, answer) {
    this.unsubscribed.push({ topic, at: time() });
    answer(this.cursors.delete(topic) ? { type: "ack", ok: true, topic, seq: 0, epoch: "x" } : refusal("unknown_topic"));
  }

  handle(frame, answer) {
    if (this.isMute) return;
    if (this.hasExpired && ["subscribe", "publish"].includes(frame.type)) return answer(refusal("token_expired"));
    if (frame.type === "subscribe") this.subscribe(frame, answer);
    else if (frame.type === "unsubscribe") this.unsubscribe(frame.topic, answer);
    else if (frame.type === "publish") answer({ type: "ack", ok: true, ...this.server.append(frame.topic, frame.id, frame.payload) });
    else if (frame.type === "auth") {
      this.hasExpired = frame.token === "expired";
      answer(this.hasExpired ? refusal("token_expired") : { type: "ack", ok: true });
    } else if (frame.type === "ack") for (const topic of Object.keys(frame.acks)) if (!this.cursors.has(topic)) this.send(refusal("unknown_topic"));
  }

  receive(frame, callback) {
    this.server.heard.push(frame);
    if (JSON.stringify(frame).length + 50 > this.engine.maxPayload) return this.engine.close("transport close");
    const answer = (given) => callback && this.engine.toClient(() => callback(given), frame.type !== "publish", given);
    const scripted = this.server.script(frame);
    if (scripted) return answer(scripted);
    if (!chance(this.server.faults)) return this.handle(frame, answer);
    const fault = pick(["late", "twice", "never", "unheard", "refused", "refused", "refused", "nonsense", "closed"]);
    if (fault === "late") this.late.add(frame.topic);
    if (fault === "late") later(random() * 9000, () => this.engine.isOpen && this.handle(frame, answer));
    else if (fault === "twice") this.handle(frame, (given) => { answer(given); answer(given); });
    else if (fault === "never") this.handle(frame, () => {});
    else if (fault === "refused") answer(refusal(pick(["rate_limited", "unavailable", "internal", "token_expired"]), chance(0.5) ? { retryAfterMs: random() * 3000 } : {}));
    else if (fault === "nonsense") answer(pick([null, undefined, 7, "ack", {}, { type: "ack" }, { type: "error" }, { type: "ack", seq: "1", epoch: 2 }]));
    else if (fault === "closed") this.engine.close("transport error");
  }

  join(auth) {
    const { engine, server } = this;
    server.heard.push({ type: "connect", ...auth });
    server.secondConnects += this.isJoined;
    if (this.isJoined) return engine.toClient(() => engine.socket._refused({ message: "joined already" }));
    if (server.swallowsConnect || chance(server.faults / 4)) return;
    const code = auth.token === "expired" ? "token_expired" : server.refuses || (chance(server.faults / 4) ? pick(["unavailable", "unauthorized"]) : null);
    if (code) return engine.toClient(() => engine.socket._refused(refusal(code)));
    this.isJoined = true;
    server.connects++;
    server.sessions.add(this);
    engine.toClient(() => engine.socket._connected());
    if (server.closesAtOnce === "namespace") engine.toClient(() => engine.socket._left());
    if (server.closesAtOnce === "transport") engine.toClient(() => engine.close("transport close"));
    const entries = Object.entries(auth.resume || {});
    if (entries.length > server.maxTopics) return this.send(refusal("limit_exceeded"));
    for (const [topic, place] of entries) {
      const scripted = server.script({ type: "resume", topic });
      if (scripted) this.send({ ...scripted, topic });
      else if (chance(server.faults / 3)) this.send(refusal(pick(["unavailable", "token_expired", "rate_limited"]), { topic }));
      else if (!chance(server.faults / 3)) this.subscribe({ topic, ...place }, (answer) => this.send(answer.code ? { ...answer, topic } : answer));
    }
  }
}

function refusal(code, more = {}) {
  return { type: "error", code, message: code, retryable: ["rate_limited", "unavailable", "internal"].includes(code), ...more };
}

/** One transport connection; both directions keep their order, whatever the latency. */
class Engine {
  constructor(server, socket) {
    Object.assign(this, { server, socket, isOpen: true, arrivals: { in: 0, out: 0 }, sent: { in: 0, out: 0 } });
    Object.assign(this, { maxPayload: server.maxPayload, _maxPayload: server.maxPayload, onPacket: () => {} });
    this.session = new Session(server, this);
    if (server.pings) this.ping();
  }

  on(name, handler) { this.onPacket = handler; }

  ping() { later(25000, () => { if (this.isOpen) { this.toClient(() => this.onPacket()); this.ping(); } }); }

  /** A frame leaves when the one before has left, and takes the longer the larger it is. */
  deliver(way, act, isOrdered, frame) {
    this.sent[way] = Math.max(this.sent[way], time()) + (50 + (JSON.stringify(frame) || "").length) / this.server.bytesPerMs;
    const at = this.sent[way] + this.server.latency * (0.5 + random());
    const arrival = isOrdered ? (this.arrivals[way] = Math.max(this.arrivals[way], at)) : at;
    later(arrival - time(), () => this.isOpen && act());
  }

  toClient(act, isOrdered = true, frame = null) { this.deliver("in", act, isOrdered, frame); }

  toServer(act, frame) { this.deliver("out", act, true, frame); }

  close(reason) {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.server.sessions.delete(this.session);
    this.socket._closed(this, reason);
  }
}

/** What the client uses of socket.io-client's Socket and Manager, with their manners: a buffer that survives the connection, CONNECT_ERROR
 *  that leaves `connected` as it was, reconnecting with a delay. */
class Socket {
  constructor(server, options) {
    Object.assign(this, { server, options, connected: false, active: false, sendBuffer: [], handlers: {}, callbacks: new Set(), attempts: 0 });
    const manager = { opts: options, engine: null, on: (name, handler) => { this.handlers[name] = handler; } };
    manager.timeout = (ms) => (ms === undefined ? this.options.timeout : (this.options.timeout = ms));
    this.io = manager;
    this.connect();
  }

  timeout() { return this; }
  on(name, handler) { this.handlers[name] = handler; }
  _fire(name, ...values) { if (this.handlers[name]) this.handlers[name](...values); }

  connect() {
    if (this.connected || this.isOpening || this.isWaiting) return this;
    this.active = this.isOpening = true;
    const { server } = this;
    const opening = (this.opening = {});
    const isHung = server.hangs && this.options.transports[0] === "websocket";
    const fail = (message) => { this.isOpening = false; this._fire("connect_error", new Error(message)); this._reconnect(); };
    const isCurrent = () => this.opening === opening && this.isOpening;
    if (isHung) later(this.options.timeout, () => isCurrent() && fail("timeout"));
    else if (server.isDown) later(server.latency, () => isCurrent() && fail("xhr poll error"));
    else later(server.latency * 4, () => {
      if (!isCurrent()) return;
      this.isOpening = false;
      const engine = (this.io.engine = new Engine(server, this));
      this.options.auth((auth) => { if (this.io.engine.isOpen) { const { session } = this.io.engine; this.io.engine.toServer(() => session.join(auth), auth); } });
    });
    return this;
  }

  _reconnect() {
    if (!this.active || this.options.reconnection === false) return;
    if (this.attempts >= (this.options.reconnectionAttempts || Infinity)) { this.attempts = 0; return this._fire("reconnect_failed"); }
    this.isWaiting = true;
    const delay = Math.min(10000, 250 * 2 ** this.attempts++) * (0.5 + random());
    later(delay, () => { if (this.isWaiting) { this.isWaiting = false; this.connect(); } });
  }

  _connected() {
    this.connected = true;
    this.attempts = 0;
    for (const [frame, callback] of this.sendBuffer.splice(0)) this._send(frame, callback);
    this._fire("connect");
  }

  _refused(data) {
    this.active = this.isWaiting = this.isOpening = false;
    const engine = this.io.engine;
    if (engine.isOpen) { engine.isOpen = false; this.server.sessions.delete(engine.session); }
    this._fire("connect_error", Object.assign(new Error(data.message), data.code ? { data } : {}));
  }

  /** Its timers were late, as in a tab that slept: what is emitted until it closes is kept for the next connection. */
  sleep() {
    const { engine } = this.io;
    this.isStale = true;
    later(random() * 500, () => { this.isStale = false; if (engine) engine.close("ping timeout"); });
  }

  /** The server has ended the namespace; the stock client does not connect again by itself. */
  _left() {
    const { engine } = this.io;
    engine.isOpen = this.connected = this.active = false;
    this.server.sessions.delete(engine.session);
    this._fire("disconnect", "io server disconnect");
  }

  _closed(engine, reason) {
    if (engine !== this.io.engine || !this.active) return;
    this.connected = false;
    this._fire("disconnect", reason);
    this.attempts = 0;
    this._reconnect();
  }

  emit(name, frame, callback) {
    if (!this.connected || this.isStale) this.sendBuffer.push([frame, callback]);
    else this._send(frame, callback);
  }

  _send(frame, callback) {
    const engine = this.io.engine;
    const copy = JSON.parse(JSON.stringify(frame));
    if (engine.isOpen) engine.toServer(() => engine.session.receive(copy, callback), copy);
  }

  disconnect() {
    const wasConnected = this.connected;
    this.isStale = false;
    this.connected = this.active = this.isOpening = this.isWaiting = false;
    const engine = this.io.engine;
    if (engine && engine.isOpen) { engine.isOpen = false; this.server.sessions.delete(engine.session); }
    if (wasConnected) this._fire("disconnect", "io client disconnect");
    return this;
  }
}

module.exports = { Server, refusal, connectTo: (server) => (url, options) => (server.socket = new Socket(server, options)), chance, pick };
