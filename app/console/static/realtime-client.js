/* Live topics for browsers and Node, on top of the stock socket.io-client: what it takes to see every message of a topic
 * once and in order, or to be told which are missing, across lost connections and restarts of the server.
 *
 *   const realtime = Switchyard.connect(io, "https://switchyard.example.com", { token: () => fetchToken(), onState: console.log });
 *   const unsubscribe = realtime.subscribe("notice:all", (payload, message) => …, { onGap: (gap) => … });
 *   await unsubscribe.ready; // what is published from now on arrives
 *   const { seq } = await realtime.publish("chat:1", { text: "hello" });
 */
(function (root) {
  "use strict";

  const ACK_AFTER_MS = 100; // acknowledgements wait this long for others,
  const ACK_AFTER = 64; // or until so many messages came
  const HOLE_MS = 2000; // a hole that has not filled by then is asked for
  const MAX_EARLY = 512; // messages kept of a topic that came before their turn; more are asked for again
  const IN_FLIGHT = 8; // publishes that wait for their answer at a time
  const ANSWER_MS = 5000;
  const REFUSALS = ["forbidden", "bad_request", "limit_exceeded"]; // of a subscription; asking again would not help

  const backoff = (attempt, first = 250, most = 10000) => Math.min(most, first * 2 ** attempt) * (0.5 + Math.random());
  const newId = () => (root.crypto && root.crypto.randomUUID ? root.crypto.randomUUID() : Date.now().toString(36) + Math.random().toString(36).slice(2));

  class Realtime {
    /** `token` is a string or a function (it may be async), asked at every connect. States: connecting, live, offline, refused, closed.
     *  Refused with a string, which stays the same, is for good: whatever waits is rejected with the server's code and message. */
    constructor(io, url, { token, onState = () => {}, onError = () => {}, ...options } = {}) {
      Object.assign(this, { _token: token, _onState: onState, _onError: onError, _topics: new Map(), _unacked: new Map() });
      Object.assign(this, { _publishes: [], _inFlight: 0, _spacing: 0, _refusals: 0, _renews: typeof token === "function" });
      this._setState("connecting");
      this.socket = io(`${url.replace(/\/$/, "")}/realtime`, {
        transports: ["websocket", "polling"], tryAllTransports: true, // polling needs all requests at one worker, so it comes second
        reconnectionDelay: 250, reconnectionDelayMax: 10000, randomizationFactor: 0.5, ...options, auth: (give) => this._authenticate(give),
      });
      this.socket.on("connect", () => this._connected());
      this.socket.on("disconnect", (reason) => this._disconnected(reason));
      this.socket.on("connect_error", (error) => this._refused(error));
      this.socket.on("message", (frame) => this._receive(frame));
    }

    /** Calls `handler(payload, {topic, id, seq, ts, epoch, skipped?})` in order; returns what ends the subscription, with a promise
     *  `ready`: the position `{since, epoch}` when the subscription stands, or an error that says why it may not.
     *  Options: ack, mode, batch as in the protocol; since and epoch to go on from a place; onGap({topic, reason, from?, to?, retryable?}). */
    subscribe(topic, handler, { onGap = () => {}, since = null, epoch = null, ...manner } = {}) {
      const state = { topic, handler, onGap, manner, epoch, seq: since, early: new Map(), timer: null };
      state.ready = new Promise((resolve, reject) => Object.assign(state, { resolve, reject }));
      state.ready.catch(() => {}); // for who does not ask
      this._forgetTimer(this._topics.get(topic));
      this._topics.set(topic, state);
      if (this._over) state.reject(this._over);
      else if (this.socket.connected) this._ask(state);
      const unsubscribe = () => {
        if (this._topics.get(topic) !== state) return;
        this._end(state, new Error("unsubscribed"));
        if (this.socket.connected) this.socket.emit("message", { type: "unsubscribe", topic });
      };
      return Object.assign(unsubscribe, { ready: state.ready });
    }

    /** Resolves to `{seq, epoch, duplicate?}` when the message is in the topic's log. It is sent again under the same id, which makes
     *  that harmless, until there is an answer or `giveUpMs` have passed. */
    publish(topic, payload, { id = newId(), giveUpMs = 60000 } = {}) {
      return new Promise((resolve, reject) => {
        if (this._over) return reject(this._over);
        const frame = { type: "publish", topic, payload, id };
        this._publishes.push({ frame, resolve, reject, attempt: 0, deadline: Date.now() + giveUpMs });
        this._pump();
      });
    }

    /** The last position of a topic, to go on from later: `{since, epoch}`. */
    position(topic) {
      const state = this._topics.get(topic);
      return state && state.seq !== null ? { since: state.seq, epoch: state.epoch } : null;
    }

    close() {
      clearTimeout(this._retry);
      this._sendAcks();
      this._setState("closed");
      this._giveUp(new Error("closed"));
      for (const state of this._topics.values()) this._end(state, this._over);
      this.socket.disconnect();
    }

    // The connection

    _setState(state, detail) {
      if (this.state !== state || state === "refused") this._onState((this.state = state), detail);
    }

    async _freshToken() {
      return this._renews ? this._token() : this._token;
    }

    async _authenticate(give) {
      const token = await this._freshToken().catch(() => ""); // which the server refuses, and then it is asked for again
      const resume = {};
      for (const state of this._topics.values()) resume[state.topic] = this._place(state);
      this._resumed = new Set(this._topics.values());
      give({ token, resume });
    }

    _connected() {
      Object.assign(this, { _refusals: 0, _over: null });
      this._setState("live");
      for (const state of this._topics.values()) if (!this._resumed.has(state)) this._ask(state);
      this._pump();
    }

    _disconnected(reason) {
      if (this.state === "closed") return;
      this._setState("offline", reason);
      if (!this.socket.active) this._reconnectLater();
    }

    /** The stock client tries again by itself where no connection came about, but not where the server said no. */
    _refused(error) {
      if (this.state === "closed") return;
      if (this.socket.active) return this._setState("offline", error.message);
      this._setState("refused", error.data || { message: error.message });
      const mayHelp = !error.data || error.data.retryable || (this._renews && error.data.code !== "forbidden");
      if (mayHelp) this._reconnectLater();
      else this._giveUp(Object.assign(new Error(error.message), error.data));
    }

    _giveUp(error) {
      this._over = error;
      for (const waiting of [...this._topics.values(), ...this._publishes.splice(0)]) waiting.reject(error);
    }

    _reconnectLater() {
      clearTimeout(this._retry);
      this._retry = setTimeout(() => this.state !== "closed" && this.socket.connect(), backoff(this._refusals++));
    }

    // What comes in

    _receive(frame) {
      if (frame.type === "error" && frame.code === "token_expired" && !frame.topic) this._renewToken();
      const state = frame.topic && this._topics.get(frame.topic);
      if (frame.type === "event" && state) for (const event of frame.events || [frame]) this._receiveEvent(state, frame.epoch, event);
      else if (frame.type === "ack" && state) this._subscribed(state, frame);
      else if (frame.type === "error") this._receiveError(state, frame);
    }

    _subscribed(state, answer) {
      if (answer.epoch === undefined) return;
      state.strange = null;
      if (state.seq === null || state.epoch !== answer.epoch || state.seq > answer.head) this._move(state, answer.epoch, answer.seq);
      state.resolve(this.position(state.topic));
    }

    _receiveEvent(state, epoch, event) {
      if (state.seq === null) this._move(state, epoch, event.skipped ? event.skipped[0] - 1 : event.seq - 1);
      if (state.epoch !== epoch) {
        const isBegun = state.seq === 0 && event.seq === 1; // nothing of the one before can have been missed
        if (isBegun) this._move(state, epoch, 0);
        else if (state.strange === epoch) return;
        else return this._ask(Object.assign(state, { strange: epoch })); // nobody told us of it: the server says what is missing
      }
      if (event.skipped) this._pass(state, event.skipped[1]);
      if (event.seq > state.seq && state.early.size < MAX_EARLY) state.early.set(event.seq, event);
      this._closeUp(state);
      this._planAck(state);
    }

    _receiveError(state, frame) {
      if (state && frame.code === "history_gap") {
        this._pass(state, frame.to);
        state.onGap({ topic: state.topic, reason: frame.code, from: frame.from, to: frame.to, retryable: frame.retryable });
      } else if (state && frame.code === "epoch_changed") {
        if (frame.epoch && state.epoch !== frame.epoch) this._move(state, frame.epoch, 0);
        state.onGap({ topic: state.topic, reason: frame.code });
      } else if (state && frame.code === "delivery_failed") {
        this._ask(state);
      } else {
        if (state && REFUSALS.includes(frame.code)) this._end(state, Object.assign(new Error(frame.message), frame));
        this._onError(frame);
      }
    }

    _move(state, epoch, seq) {
      Object.assign(state, { epoch, seq, strange: null });
      state.early.clear();
      this._forgetTimer(state);
    }

    /** Nothing up to `last` will come any more, except what is here already. */
    _pass(state, last) {
      for (const seq of [...state.early.keys()].sort((a, b) => a - b)) if (seq > state.seq && seq <= last) this._deliver(state, seq);
      state.seq = Math.max(state.seq, last);
      this._closeUp(state);
    }

    _closeUp(state) {
      while (state.early.has(state.seq + 1)) this._deliver(state, state.seq + 1);
      for (const seq of state.early.keys()) if (seq <= state.seq) state.early.delete(seq);
      if (!state.early.size) this._forgetTimer(state);
      else if (!state.timer) state.timer = setTimeout(() => { state.timer = null; this._ask(state); }, HOLE_MS);
    }

    _deliver(state, seq) {
      const { payload, ...message } = state.early.get(seq);
      state.early.delete(seq);
      state.seq = seq;
      try {
        state.handler(payload, { ...message, topic: state.topic, epoch: state.epoch });
      } catch (error) {
        this._onError(error);
      }
    }

    _end(state, error) {
      this._forgetTimer(state);
      this._topics.delete(state.topic);
      this._unacked.delete(state.topic);
      state.reject(error);
    }

    _forgetTimer(state) {
      if (state) state.timer = clearTimeout(state.timer);
    }

    // What goes out

    _place(state) {
      return { ...state.manner, ...(state.seq === null ? {} : { since: state.seq, epoch: state.epoch || undefined }) };
    }

    /** Subscribe, or go back to where the topic stands; asking again does no harm. */
    _ask(state) {
      if (!this.socket.connected || this._topics.get(state.topic) !== state) return;
      this.socket.timeout(ANSWER_MS).emit("message", { type: "subscribe", topic: state.topic, ...this._place(state) }, (error, answer) => {
        if (this._topics.get(state.topic) !== state) return;
        if (error) this._ask(state);
        else if (answer.type === "ack") this._subscribed(state, answer);
        else if (answer.retryable || answer.code === "token_expired") setTimeout(() => this._ask(state), answer.retryAfterMs || backoff(2));
        else this._receiveError(state, { ...answer, topic: state.topic });
      });
    }

    _planAck(state) {
      if (state.manner.ack === false) return;
      this._unacked.set(state.topic, (this._unacked.get(state.topic) || 0) + 1);
      if (this._unacked.get(state.topic) >= ACK_AFTER) this._sendAcks();
      else if (!this._ackTimer) this._ackTimer = setTimeout(() => this._sendAcks(), ACK_AFTER_MS);
    }

    _sendAcks() {
      this._ackTimer = clearTimeout(this._ackTimer);
      const acks = {};
      for (const topic of this._unacked.keys()) if (this._topics.has(topic)) acks[topic] = this._topics.get(topic).seq;
      this._unacked.clear();
      if (this.socket.connected && Object.keys(acks).length) this.socket.emit("message", { type: "ack", acks });
    }

    async _renewToken() {
      const token = this._renews && (await this._freshToken().catch(this._onError));
      if (token && this.socket.connected) this.socket.emit("message", { type: "auth", token });
    }

    /** A few at a time; after a `rate_limited` at the pace that the server named. */
    _pump() {
      if (!this.socket.connected || this._pumpTimer) return;
      while (this._publishes.length && this._inFlight < (this._spacing ? 1 : IN_FLIGHT)) {
        this._send(this._publishes.shift());
        if (this._spacing) this._pumpTimer = setTimeout(() => { this._pumpTimer = null; this._pump(); }, this._spacing);
        if (this._pumpTimer) return;
      }
    }

    _send(job) {
      this._inFlight++;
      this.socket.timeout(ANSWER_MS).emit("message", job.frame, (error, answer) => {
        this._inFlight--;
        const mayHelp = error || answer.retryable || (answer.code === "token_expired" && this._renews);
        if (!error && answer.type === "ack") job.resolve(answer);
        else if (mayHelp && !this._over && Date.now() < job.deadline) this._sendAgain(job, error ? null : answer);
        else job.reject(Object.assign(new Error(error ? "no answer" : answer.message), error ? { code: "unavailable" } : answer));
        this._pump();
      });
    }

    _sendAgain(job, answer) {
      if (answer && answer.code === "rate_limited") {
        this._spacing = Math.max(this._spacing, answer.retryAfterMs + 5);
        clearTimeout(this._spacingTimer);
        this._spacingTimer = setTimeout(() => { this._spacing = 0; this._pump(); }, 10000);
        this._publishes.unshift(job);
      } else {
        setTimeout(() => { this._publishes.push(job); this._pump(); }, this.socket.connected ? backoff(job.attempt++) : 0);
      }
    }
  }

  const api = { connect: (io, url, options) => new Realtime(io, url, options), Realtime };
  if (typeof module === "object" && module.exports) module.exports = api;
  else root.Switchyard = { ...root.Switchyard, ...api };
})(typeof globalThis === "object" ? globalThis : this);
