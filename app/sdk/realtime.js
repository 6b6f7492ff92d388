/* Live topics for browsers and Node, on top of the stock socket.io-client (4.4 or newer).
 *
 *   const realtime = Switchyard.connect(io, "https://switchyard.example.com", { token: () => fetchToken(), onState: console.log });
 *   const unsubscribe = realtime.subscribe("notice:all", (payload, message) => …, { onGap: (gap) => … });
 *   await unsubscribe.ready; // what is published from now on arrives
 *   const { seq } = await realtime.publish("chat:1", { text: "hello" });
 *
 * Invariants, on any network and with any server:
 * 1. Every promise (`ready`, `publish`, `unsubscribe()`) settles within its `giveUpMs`: resolved, or rejected with an Error that has a `code`.
 * 2. Every topic with a subscription is live, or is being asked for, and the caller was told why it is not live (`ready`, onState, onError).
 * 3. A handler gets each message of its topic once and in order; onGap reports the messages that it does not get.
 *
 * Three parts: Topic puts messages in order, Requests get frames answered, Realtime keeps the connection.
 */
(function (root) {
  "use strict";

  const ACK_AFTER_MS = 100; // acknowledgements wait this long for others,
  const ACK_AFTER = 64; // or until so many messages came
  const HOLE_MS = 2000; // a hole that has not filled by then is asked for
  const MAX_EARLY = 512; // messages kept of a topic that came before their turn; more are asked for again
  const IN_FLIGHT = 8; // requests that wait for their answer at a time
  const MAX_WAITING = 10000; // publishes that wait; one more is rejected with limit_exceeded
  const ANSWER_MS = 5000; // how often a request without an answer is looked at; an answer that comes later still counts
  const PING_MS = 25000; // between two pings of the server, where the handshake does not name it
  const LOST_MS = 60000; // a request that has no answer by then gets a new connection, even if the server still pings
  const SLOWEST = 1; // bytes per millisecond: a slower link is taken for a dead one
  const MAX_LEAVING_BYTES = 64000; // on their way at a time, so that the pong behind them is not late
  const CONNECT_MS = 10000; // for one attempt to connect; doubled after each timeout, up to
  const MAX_CONNECT_MS = 40000;
  const TOKEN_MS = 60000; // then a token function that has not answered is called again
  const GIVE_UP_MS = 60000;
  const MAX_WAIT_MS = 60000; // the longest retryAfterMs of a server that is obeyed
  const MAX_SPACING_MS = 10000;
  const STANDS_MS = 5000; // a connection that ends earlier is followed by a longer wait than the one before
  const ENVELOPE_BYTES = 100; // what Socket.IO puts around a frame
  const MAX_FRAME_BYTES = 512000; // where the handshake does not name a maximum
  const MAX_RESUMED = 128; // topics that are resumed with the connection; the others are asked for one by one
  const MAX_TIMER_MS = 2 ** 31 - 1; // a longer setTimeout fires at once
  const REFUSALS = ["forbidden", "bad_request", "limit_exceeded"]; // of a subscription; asking again would not help
  const RESUMED = { isResume: true }; // in place of a request: the topic was asked for with the connection

  const now = () => (root.performance ? root.performance.now() : Date.now());
  const after = (ms, act) => (ms < MAX_TIMER_MS ? setTimeout(act, Math.max(0, ms)) : null);
  const backoff = (attempt, first = 250, most = 10000) => Math.min(most, first * 2 ** Math.min(attempt, 20)) * (0.5 + Math.random());
  const newId = () => (root.crypto && root.crypto.randomUUID ? root.crypto.randomUUID() : Date.now().toString(36) + Math.random().toString(36).slice(2));
  /** The server's retryAfterMs; 0, which means a back-off of our own, where it is no positive number. */
  const waitNamedIn = ({ retryAfterMs: given }) => (Number.isFinite(given) && given > 0 ? Math.min(given, MAX_WAIT_MS) : 0);
  const failure = (answer) => Object.assign(new Error(answer.message || answer.code), answer);
  const unavailable = (message) => ({ type: "error", code: "unavailable", message, retryable: true });
  const isText = (value, most) => typeof value === "string" && value.length > 0 && value.length <= most;
  const placeOf = ({ seq, epoch, duplicate }) => ({ seq, epoch, ...(duplicate ? { duplicate } : {}) });
  const isPlace = (answer) => Number.isInteger(answer.seq) && isText(answer.epoch, 1000);

  /** What a publish holds until it is answered: a copy, which a later change of the payload does not reach. Throws where it is not JSON. */
  function frozen(frame) {
    const text = JSON.stringify(frame, function (key, value) {
      const given = this[key];
      const isBinary = ArrayBuffer.isView(given) || /^\[object (ArrayBuffer|SharedArrayBuffer|Blob|File)\]$/.test(Object.prototype.toString.call(given));
      if (isBinary) throw new TypeError("payload must be JSON, without binary parts");
      return value;
    });
    return { copy: JSON.parse(text), bytes: new TextEncoder().encode(text).length };
  }

  /** One topic: its messages once and in order, whatever comes twice or too early. `seq` is the position up to which all was handed on.
   *  Each listener has a position of its own, so that one may begin earlier than the others. */
  class Topic {
    constructor(name, client) {
      Object.assign(this, { name, client, listeners: new Set(), leaving: [], request: null, stands: false, asksAgain: false });
      this.early = new Map();
      this.reset();
    }

    reset() {
      Object.assign(this, { epoch: null, seq: null, strange: null });
      this.early.clear();
      this.timer = clearTimeout(this.timer);
    }

    /** The least demanding manner that gives every listener what it asked for. */
    get manner() {
      return [...this.listeners].map((listener) => listener.manner).reduce((one, other) => ({
        ack: one.ack === other.ack ? one.ack : true,
        mode: one.mode === other.mode ? one.mode : "all",
        batch: one.batch || other.batch ? true : undefined,
      }));
    }

    get place() {
      return { ...this.manner, ...(this.seq === null ? {} : { since: this.seq, epoch: this.epoch || undefined }) };
    }

    /** A listener that gave a position takes the topic back to it; the others pass over what they had. */
    add(listener) {
      const before = this.listeners.size && JSON.stringify(this.manner);
      this.listeners.add(listener);
      if (listener.seq === null) Object.assign(listener, { epoch: this.epoch, seq: this.seq });
      else {
        if (this.seq === null || (listener.epoch && listener.epoch !== this.epoch) || listener.seq < this.seq) {
          this.goTo(listener.epoch || this.epoch, listener.seq);
        }
        this.asksAgain = true;
      }
      if (before && before !== JSON.stringify(this.manner)) this.asksAgain = true;
    }

    remove(listener) {
      this.listeners.delete(listener);
      if (!this.listeners.size) this.reset();
    }

    goTo(epoch, seq) {
      this.reset();
      Object.assign(this, { epoch, seq });
    }

    /** Listeners follow the topic into its epoch. Those whose position means nothing there are told, and get it from its beginning.
     *  `head` is its last message. */
    align({ head, isBegun = false, isOther = false } = {}) {
      const isLost = ({ epoch, seq }) => seq !== null && ((epoch ? epoch !== this.epoch : isOther) || seq > head);
      const lost = [...this.listeners].filter(isLost);
      const told = lost.filter((listener) => !(isBegun && listener.seq === 0));
      for (const listener of this.listeners) {
        if (listener.seq === null) listener.seq = head === undefined ? this.seq : Math.max(this.seq, head);
        listener.epoch = this.epoch;
      }
      for (const listener of lost) listener.seq = 0;
      if (lost.length && this.seq > 0) {
        this.goTo(this.epoch, 0);
        this.askAgain();
      }
      for (const listener of told) this.tell(listener, { reason: "epoch_changed" });
    }

    tell(listener, gap) {
      if (this.listeners.has(listener)) this.client._call(listener.onGap, { topic: this.name, ...gap });
    }

    subscribed(answer) {
      this.strange = null;
      const isOther = answer.reason === "epoch_changed"; // decides where a position was given without an epoch
      const stays = this.seq !== null && (this.epoch ? this.epoch === answer.epoch : !isOther) && !(this.seq > answer.head);
      if (!stays) this.goTo(answer.epoch, answer.seq);
      this.epoch = answer.epoch;
      this.align({ head: answer.head, isOther });
      for (const listener of this.listeners) listener.resolve({ since: listener.seq, epoch: listener.epoch });
    }

    receive(epoch, event) {
      if (!event || !Number.isInteger(event.seq) || !isText(epoch, 1000)) return;
      const skips = Array.isArray(event.skipped) && event.skipped.every(Number.isInteger);
      if (this.seq === null || (this.epoch !== epoch && this.seq === 0 && event.seq === 1)) {
        const isBegun = this.seq === 0; // nothing of the epoch before can have been missed
        this.goTo(epoch, (skips ? event.skipped[0] : event.seq) - 1);
        this.align({ isBegun });
      }
      if (this.epoch !== epoch) {
        if (this.strange !== epoch) this.askAgain(); // nobody told us of this epoch: the server says what is missing
        this.strange = epoch;
        return;
      }
      if (skips) this.pass(event.skipped[1]);
      if (event.seq > this.seq && this.early.size < MAX_EARLY) this.early.set(event.seq, event);
      this.closeUp();
    }

    /** A gap that the server knows of. */
    miss({ code, from, to, retryable, epoch }) {
      if (code === "epoch_changed") {
        if (epoch && this.epoch !== epoch) this.goTo(epoch, 0);
        this.align();
        return;
      }
      if (!Number.isInteger(from) || !Number.isInteger(to)) return;
      this.pass(to, (listener, before) => {
        const first = Math.max(from, listener.seq === null ? from : listener.seq + 1);
        if (first < before) this.tell(listener, { reason: code, from: first, to: before - 1, retryable });
      });
    }

    /** Nothing up to `last` will come any more, except what is here already. `tell(listener, seq)` is called where messages before `seq` are missing. */
    pass(last, tell = () => {}) {
      const here = [...this.early.keys()].filter((seq) => this.seq !== null && seq > this.seq && seq <= last).sort((a, b) => a - b);
      let reached = this.seq;
      for (const seq of [...here, last + 1]) {
        for (const listener of [...this.listeners]) tell(listener, seq);
        if (this.seq === null || this.seq !== reached) return; // a handler has subscribed from another place, or nobody listens any more
        this.seq = Math.max(this.seq, seq - 1);
        for (const listener of this.listeners) listener.seq = Math.max(listener.seq, seq - 1);
        if (this.early.has(seq) && seq <= last) this.deliver(seq);
        reached = Math.max(reached, seq <= last ? seq : last);
      }
      this.closeUp();
    }

    closeUp() {
      while (this.early.has(this.seq + 1)) this.deliver(this.seq + 1);
      for (const seq of this.early.keys()) if (seq <= this.seq) this.early.delete(seq);
      if (!this.early.size) this.timer = clearTimeout(this.timer);
      else if (!this.timer) this.timer = setTimeout(() => { this.timer = null; this.askAgain(); this.closeUp(); }, HOLE_MS);
    }

    deliver(seq) {
      const { payload, ...message } = this.early.get(seq);
      this.early.delete(seq);
      this.seq = seq;
      for (const listener of [...this.listeners]) {
        if (seq <= listener.seq || !this.listeners.has(listener)) continue;
        listener.seq = seq;
        this.client._call(listener.handler, payload, { ...message, topic: this.name, epoch: this.epoch });
      }
    }

    askAgain() {
      this.asksAgain = true;
      this.client._tend(this);
    }

    /** No listener gets anything any more: each has its reason. */
    end(error) {
      for (const listener of [...this.listeners]) listener.reject(error);
      this.listeners.clear();
      this.reset();
    }
  }

  /** Frames that need an answer. A frame without one, or with a refusal that may pass, is sent again until it is settled.
   *
   *  Invariant: no second copy of a frame is sent while the first may still be leaving, that is: only on another connection, or where a frame
   *  that was sent after it has been answered. A connection is given up only if nothing was received for longer than its server stays silent
   *  plus the time that the unanswered bytes take at the SLOWEST rate, or if it leaves one request unanswered for LOST_MS more than that. */
  class Requests {
    constructor(client) {
      Object.assign(this, { client, queue: [], inFlight: new Set(), spacing: 0 });
      this.connected();
    }

    /** `sent` and `arrived` count bytes of this connection: an answer shows that all frames before its own have arrived. */
    connected(pingMs = PING_MS) {
      Object.assign(this, { sent: 0, arrived: 0, silentMs: pingMs + ANSWER_MS });
      this.heard();
    }

    /** Anything at all was received: the connection lives. */
    heard() {
      this.heardAt = now();
    }

    /** `settle(error, answer)` is called once, but not where the connection ends that a request without `outlives` belongs to.
     *  `frame` may be a function, called each time it is sent. `onTrouble(error)` is called once, after the third failure,
     *  `onLate()` where a copy of a settled request is answered: the server may have acted on it just now. */
    add(frame, settle, { giveUpMs = Infinity, outlives = false, bytes = 0, renews = true, onTrouble = () => {}, onLate = () => {}, accepts = () => true } = {}) {
      const request = { frame, settle, outlives, bytes, renews, onTrouble, onLate, accepts, attempt: 0, notBefore: 0, refusal: null, isOver: false };
      request.deadline = after(giveUpMs, () => this.finish(request, failure(request.refusal || this.client._why())));
      this.queue.push(request);
      return request; // the caller calls pump()
    }

    /** A few at a time, and few bytes; after a `rate_limited` one at a time, at the pace that the server named. */
    pump() {
      this.pumpTimer = clearTimeout(this.pumpTimer);
      while (this.client._isLive && this.queue.length && this.inFlight.size < (this.spacing ? 1 : IN_FLIGHT)) {
        const time = now();
        const index = this.queue.findIndex((request) => request.notBefore <= time);
        if (this.spacedUntil > time || index < 0) {
          const due = Math.min(...this.queue.map((request) => request.notBefore));
          this.pumpTimer = setTimeout(() => this.pump(), Math.max(due, this.spacedUntil || 0) - time + 1);
          return;
        }
        if (this.inFlight.size && this.leaving() + this.queue[index].bytes > MAX_LEAVING_BYTES) return; // the next answer makes room
        if (this.spacing) this.spacedUntil = time + this.spacing;
        this.send(this.queue.splice(index, 1)[0]);
      }
    }

    send(request) {
      if (this.client._isTooLarge(request.bytes)) return this.finish(request, failure(this.client._tooLarge()));
      this.inFlight.add(request);
      const [attempt, connection] = [++request.attempt, this.client._attempt];
      const end = (this.sent += request.bytes + ENVELOPE_BYTES);
      Object.assign(request, { sentAt: now(), end, timer: setTimeout(() => this.unanswered(request), ANSWER_MS) });
      const frame = typeof request.frame === "function" ? request.frame() : request.frame;
      this.client.socket.emit("message", frame, (answer) => {
        if (connection !== this.client._attempt) return;
        this.arrived = Math.max(this.arrived, end);
        this.answered(request, attempt, answer);
      });
    }

    leaving(end = this.sent) {
      return Math.max(0, end - this.arrived);
    }

    answered(request, attempt, given) {
      this.heard();
      const isAck = given && given.type === "ack" && request.accepts(given);
      const isLatest = this.inFlight.has(request) && attempt === request.attempt;
      if (request.isOver && isAck) request.onLate();
      if (request.isOver || !(isAck || isLatest)) return this.pump();
      if (isAck) this.finish(request, null, given);
      else {
        const answer = given && given.type === "error" && isText(given.code, 100) ? given : unavailable("The server's answer makes no sense.");
        if (answer.code === "token_expired") this.client._renewToken();
        if (this.client._mayHelp(answer, request.renews)) this.again(request, answer);
        else this.finish(request, failure(answer));
      }
      this.pump();
    }

    unanswered(request) {
      const isLost = request.end < this.arrived;
      const isSilent = !isLost && this.isSilent(request);
      if (isLost || isSilent) this.again(request, unavailable("There is no answer."));
      else request.timer = setTimeout(() => this.unanswered(request), ANSWER_MS);
      if (isSilent) this.client._restart("no answer");
      this.pump();
    }

    isSilent({ sentAt, end }) {
      const leavingMs = this.leaving(end) / SLOWEST;
      return now() - Math.max(this.heardAt, sentAt) > this.silentMs + leavingMs || now() - sentAt > LOST_MS + leavingMs;
    }

    again(request, answer) {
      clearTimeout(request.timer);
      if (this.inFlight.delete(request)) this.queue.unshift(request);
      request.refusal = answer;
      const named = waitNamedIn(answer);
      if (answer.code === "rate_limited") this.slowDown(Math.min(named, MAX_SPACING_MS) + 5);
      const spread = answer.code === "rate_limited" ? 1 : 1 + Math.random() / 2;
      request.notBefore = now() + Math.max(named * spread, backoff(Math.max(0, request.attempt - 1), named ? 5 : 250)); // never at once for ever
      if (request.attempt === 3) request.onTrouble(failure(answer));
    }

    slowDown(spacing) {
      this.spacing = Math.max(this.spacing, spacing);
      this.spacedUntil = now() + this.spacing;
      clearTimeout(this.spacingTimer);
      this.spacingTimer = setTimeout(() => { this.spacing = this.spacedUntil = 0; this.pump(); }, 10000);
    }

    /** The token was renewed: what was refused for the old one need not wait. */
    wake() {
      for (const request of this.queue) if (request.refusal && request.refusal.code === "token_expired") request.notBefore = 0;
      this.pump();
    }

    finish(request, error, answer) {
      if (request.isOver) return;
      this.drop(request);
      request.settle(error, answer);
      this.pump();
    }

    drop(request) {
      request.isOver = true;
      clearTimeout(request.timer);
      clearTimeout(request.deadline);
      this.inFlight.delete(request);
      if (this.queue.includes(request)) this.queue.splice(this.queue.indexOf(request), 1);
    }

    /** Publishes wait for the next connection, longer each time that it ends under them; all else belonged to this one. */
    disconnected() {
      for (const request of [...this.inFlight].reverse()) {
        clearTimeout(request.timer);
        if (request.attempt > 1) request.notBefore = now() + backoff(request.attempt - 2);
        this.queue.unshift(request);
      }
      this.inFlight.clear();
      for (const request of [...this.queue]) if (!request.outlives) this.drop(request);
      this.stopTimers();
    }

    stopTimers() {
      clearTimeout(this.pumpTimer);
      clearTimeout(this.spacingTimer);
      this.spacing = this.spacedUntil = 0;
    }

    end(error) {
      for (const request of [...this.inFlight, ...this.queue]) this.finish(request, error);
      this.stopTimers();
    }
  }

  class Realtime {
    /** `token` is a string or a function (it may be async), asked at every connect and when it expires. States: connecting, live, offline, refused, closed.
     *  Refused with a string, which stays the same, is for good, and so is `closed`: whatever waits is rejected with the reason. */
    constructor(io, url, { token, onState = () => {}, onError = () => {}, ...options } = {}) {
      if (typeof io !== "function" || typeof url !== "string") {
        throw new TypeError("Switchyard.connect(io, url, options): io is the function of socket.io-client, url a string.");
      }
      Object.assign(this, { _token: token, _renews: typeof token === "function", _onState: onState, _onError: onError, _news: [] });
      Object.assign(this, { _topics: new Map(), _unacked: new Map(), _resumed: new Set(), _requests: new Requests(this) });
      Object.assign(this, { _attempt: 0, _refusals: 0, _falls: 0, _isLive: false, _reason: null, _over: null });
      this._spacing = [options.reconnectionDelay || 250, options.reconnectionDelayMax || 10000];
      this._maxRefusals = options.reconnection === false ? 0 : options.reconnectionAttempts || Infinity;
      this._setState("connecting");
      this.socket = io(`${url.replace(/\/$/, "")}/realtime`, {
        transports: ["websocket", "polling"], tryAllTransports: true, // polling needs all requests at one worker, so it comes second
        forceNew: true, timeout: CONNECT_MS, // the order of the transports and the timeout change with what fails
        reconnectionDelay: 250, reconnectionDelayMax: 10000, randomizationFactor: 0.5, ...options, auth: (give) => this._authenticate(give),
      });
      if (typeof this.socket.timeout !== "function") {
        this.socket.disconnect();
        throw new Error("Switchyard needs socket.io-client 4.4 or newer; the one that was given is older.");
      }
      this.socket.on("connect", () => this._connected());
      this.socket.on("disconnect", (reason) => this._disconnected(reason));
      this.socket.on("connect_error", (error) => this._refused(error));
      this.socket.on("message", (frame) => this._receive(frame));
      this.socket.io.on("reconnect_failed", () => this._close(unavailable("All attempts to connect are used up.")));
    }

    /** Calls `handler(payload, {topic, id, seq, ts, epoch, skipped?})` in order; returns the function that ends the subscription. It returns a
     *  promise, and has one: `ready`, the position `{since, epoch}` when the subscription stands. Where `ready` is rejected because `giveUpMs` are
     *  over, the subscription is still wanted and begins with the connection; with any other code it has ended.
     *  Options: ack, mode, batch as in the protocol; since and epoch to go on from a place; onGap({topic, reason, from?, to?, retryable?}). */
    subscribe(topic, handler, { onGap = () => {}, since = null, epoch = null, giveUpMs = GIVE_UP_MS, ack, mode, batch } = {}) {
      const listener = { handler, onGap, epoch, seq: since, manner: { ack, mode, batch } };
      const ready = new Promise((resolve, reject) => {
        const deadline = after(giveUpMs, () => listener.reject(failure(this._why())));
        listener.resolve = (place) => { clearTimeout(deadline); resolve(place); };
        listener.reject = (error) => { clearTimeout(deadline); reject(error); };
      });
      ready.catch(() => {}); // for callers that do not ask
      const isPosition = since === null || (Number.isInteger(since) && since >= 0 && (epoch === null || isText(epoch, 1000)));
      const wrong = !isText(topic, 255) ? "A topic is a string of 1 to 255 characters." : "since is a whole number from 0 and epoch a string, as position() gives them.";
      const refusal = this._over || (isText(topic, 255) && isPosition ? null : failure({ code: "bad_request", message: wrong, retryable: false }));
      if (refusal) listener.reject(refusal);
      else {
        if (!this._topics.has(topic)) this._topics.set(topic, new Topic(topic, this));
        const state = this._topics.get(topic);
        state.add(listener);
        if (state.stands && !state.request && !state.asksAgain) listener.resolve({ since: listener.seq, epoch: listener.epoch });
        this._tend(state);
      }
      return Object.assign(() => this._leave(topic, listener), { ready });
    }

    /** Resolves to `{seq, epoch, duplicate?}` when the message is in the topic's log. It is sent again under the same id, which makes
     *  that harmless, until there is an answer or `giveUpMs` have passed. Rejected without an answer it may be in the log all the same. */
    publish(topic, payload, { id = newId(), giveUpMs = GIVE_UP_MS } = {}) {
      return new Promise((resolve, reject) => {
        if (this._over) return reject(this._over);
        let frame;
        try {
          frame = frozen({ type: "publish", topic, payload, id });
        } catch (error) {
          return reject(failure({ code: "bad_request", message: error.message, retryable: false }));
        }
        if (this._isTooLarge(frame.bytes)) return reject(failure(this._tooLarge()));
        if (this._requests.queue.length >= MAX_WAITING) {
          return reject(failure({ code: "limit_exceeded", message: `${MAX_WAITING} requests wait already.`, retryable: true }));
        }
        const settle = (error, answer) => (error ? reject(error) : resolve(placeOf(answer)));
        this._requests.add(frame.copy, settle, { giveUpMs, outlives: true, bytes: frame.bytes, accepts: isPlace });
        this._requests.pump();
      });
    }

    /** The last position of a topic, to go on from later: `{since, epoch}`. */
    position(topic) {
      const state = this._topics.get(topic);
      return state && state.seq !== null ? { since: state.seq, epoch: state.epoch } : null;
    }

    close() {
      if (this._isLive) this._sendAcks();
      this._close({ code: "closed", message: "closed", retryable: false });
    }

    // The connection

    _setState(state, detail) {
      if (this.state === state && state !== "refused") return;
      this.state = state;
      this._news.push([state, detail]);
      if (this._news.length > 1) return;
      const report = () => { while (this._news.length) { this._call(this._onState, ...this._news[0]); this._news.shift(); } };
      if (this.socket) report();
      else Promise.resolve().then(report); // not before the constructor has returned
    }

    /** A function of the caller: whatever it throws is reported and changes nothing here. */
    _call(act, ...args) {
      try {
        act(...args);
      } catch (error) {
        if (act !== this._onError) this._call(this._onError, error);
        else console.error(error);
      }
    }

    /** Why something that waits is given up. */
    _why() {
      return this._reason || unavailable(this._isLive ? "There is no answer." : "There is no connection.");
    }

    /** A call that is under way is shared; one that hangs is left behind after TOKEN_MS. */
    _askToken() {
      if (!this._renews) return Promise.resolve(this._token);
      if (!this._asked) {
        const asked = new Promise((resolve, reject) => {
          this._tokenTimer = setTimeout(() => reject(new Error("the token function does not answer")), TOKEN_MS);
          Promise.resolve().then(() => this._token()).then(resolve, reject);
        });
        const done = () => { if (this._asked === asked) { this._asked = null; clearTimeout(this._tokenTimer); } };
        this._asked = asked;
        asked.then(done, done);
      }
      return this._asked;
    }

    /** `give` sends on whatever connection there is then: it is not called for one that has ended meanwhile. */
    async _authenticate(give) {
      const attempt = ++this._attempt;
      try {
        const token = await this._askToken();
        if (attempt !== this._attempt) return;
        const standing = [...this._topics.values()].filter((topic) => topic.listeners.size).sort((a, b) => (b.seq !== null) - (a.seq !== null));
        this._resumed = new Set(standing.slice(0, MAX_RESUMED));
        const resume = Object.create(null); // a topic may be called __proto__
        for (const topic of this._resumed) resume[topic.name] = topic.place;
        const leavingMs = JSON.stringify(resume).length / SLOWEST;
        this._joinTimer = setTimeout(() => this._restart("no answer to the connect packet"), CONNECT_MS + leavingMs);
        give({ token, resume });
      } catch (error) {
        if (attempt !== this._attempt) return;
        this._call(this._onError, error);
        this._restart(`no token: ${error && error.message}`);
      }
    }

    _connected() {
      clearTimeout(this._joinTimer);
      if (this.state === "closed") return this.socket.disconnect();
      Object.assign(this, { _isLive: true, _refusals: 0, _over: null, _reason: null });
      this._standTimer = setTimeout(() => { this._falls = 0; }, STANDS_MS);
      const engine = this.socket.io.engine;
      this._requests.connected((engine && (engine._pingInterval || engine.pingInterval)) || PING_MS);
      if (engine && engine.on) engine.on("packet", () => this._requests.heard());
      this._maxFrameBytes = (engine && (engine._maxPayload || engine.maxPayload)) || MAX_FRAME_BYTES;
      for (const topic of this._resumed) topic.request = RESUMED;
      this._resumed = new Set();
      this._resumeTimer = setTimeout(() => this._awaitResumed(ANSWER_MS), ANSWER_MS);
      this._setState("live");
      for (const topic of [...this._topics.values()]) this._tend(topic);
      this._requests.pump();
    }

    /** The stock client begins its back-off anew with each connection, however short; from the second short one on it is ours that counts. */
    _disconnected(reason) {
      this._lost(reason);
      if (this.state === "closed") return;
      if (this.socket.active && this._maxRefusals && this._falls) this.socket.disconnect();
      if (!this.socket.active || !this._maxRefusals) this._reconnectLater();
      else this._falls++;
    }

    /** The connection is gone, and with it all that was asked for on it. */
    _lost(reason) {
      if (!this._isLive && this._joinTimer) this._swapTransports(); // it was open and came to nothing
      for (const name of ["_joinTimer", "_standTimer", "_resumeTimer", "_ackTimer", "_renewTimer"]) this[name] = clearTimeout(this[name]);
      Object.assign(this, { _isLive: false, _renewing: false, _attempt: this._attempt + 1, _resumed: new Set() });
      if (this.socket.sendBuffer) this.socket.sendBuffer.length = 0; // what it kept was meant for the connection that is gone
      this._unacked.clear();
      this._requests.disconnected();
      for (const topic of [...this._topics.values()]) {
        Object.assign(topic, { stands: false, request: null, isEnding: false });
        this._left(topic);
      }
      if (this.state !== "closed" && this.state !== "refused") this._setState("offline", reason);
    }

    /** The stock client tries again by itself where no connection came about, but not where the server said no. */
    _refused(error) {
      if (this.state === "closed") return;
      if (this.socket.connected) this.socket.disconnect(); // it would take itself for connected for ever
      if (this.socket.active) {
        if (error.message === "timeout") this.socket.io.timeout(Math.min(2 * this.socket.io.timeout(), MAX_CONNECT_MS));
        this._swapTransports();
        if (this.state !== "refused") this._setState("offline", error.message);
        if (!this._maxRefusals) this._close(unavailable(error.message));
        return;
      }
      this._joinTimer = clearTimeout(this._joinTimer);
      const refusal = error.data && isText(error.data.code, 100) ? error.data : unavailable(error.message);
      this._reason = refusal;
      this._setState("refused", refusal);
      this._lost();
      const mayHelp = refusal.retryable || (this._renews && refusal.code !== "forbidden");
      if (mayHelp) this._reconnectLater();
      else this._giveUp(failure(refusal));
    }

    /** A websocket that hangs is not a websocket that fails: the next attempt begins with the other transport. */
    _swapTransports() {
      const { transports } = this.socket.io.opts;
      if (Array.isArray(transports)) this.socket.io.opts.transports = [...transports.slice(1), ...transports.slice(0, 1)];
    }

    _restart(reason) {
      const wasConnected = this.socket.connected;
      this.socket.disconnect();
      if (!wasConnected) this._disconnected(reason);
    }

    _reconnectLater() {
      clearTimeout(this._retry);
      if (this._refusals >= this._maxRefusals) return this._close(this._reason || unavailable("All attempts to connect are used up."));
      this._refusals++;
      this._retry = setTimeout(() => this.socket.connect(), backoff(this._falls++, ...this._spacing));
    }

    _giveUp(error) {
      this._over = error;
      this._requests.end(error);
      for (const topic of this._topics.values()) {
        topic.end(error);
        this._left(topic);
      }
      this._topics.clear();
    }

    _close(reason) {
      if (this.state === "closed") return;
      this._setState("closed", reason);
      this._giveUp(failure(reason));
      this._lost();
      for (const name of ["_retry", "_tokenTimer"]) clearTimeout(this[name]);
      this.socket.disconnect();
    }

    // What comes in

    _receive(frame) {
      this._requests.heard();
      if (!frame || typeof frame !== "object") return;
      const topic = this._topics.get(frame.topic);
      if (frame.type === "event") this._receiveEvents(topic, frame);
      else if (frame.type === "ack") this._receiveAnswer(topic, frame);
      else if (frame.type === "error" && isText(frame.code, 100)) this._receiveError(topic, frame);
    }

    _receiveEvents(topic, frame) {
      if (!topic || !topic.listeners.size || topic.isEnding) return;
      for (const event of Array.isArray(frame.events) ? frame.events : [frame]) topic.receive(frame.epoch, event);
      this._planAck(topic);
    }

    /** Answers to what was asked for with the connection; those to requests come to their callbacks. */
    _receiveAnswer(topic, answer) {
      if (!topic || !isPlace(answer) || (topic.request && topic.request !== RESUMED)) return;
      topic.request = null;
      this._stands(topic, answer);
    }

    _receiveError(topic, error) {
      if (error.code === "token_expired") this._renewToken();
      if (!topic) {
        if (REFUSALS.includes(error.code) && error.id === undefined) this._askUnresumed(); // maybe the whole resume was refused
        this._call(this._onError, error);
      } else if (error.code === "history_gap" || error.code === "epoch_changed") {
        if (topic.listeners.size && !topic.isEnding) topic.miss(error);
      } else if (error.code === "delivery_failed") topic.askAgain();
      else if (topic.request === RESUMED && this._mayHelp(error)) {
        topic.request = null;
        this._tend(topic, error);
      } else if (topic.request === RESUMED || REFUSALS.includes(error.code)) this._endTopic(topic, failure(error));
      else this._call(this._onError, error);
    }

    // Topics

    /** The one place that compares what is wanted of a topic with what the server was asked for. One request a topic at a time, so that the
     *  answer to an old one is never taken for that to a new one. `refusal` is why the last one failed. */
    _tend(topic, refusal) {
      if (topic.request || this._topics.get(topic.name) !== topic) return;
      if (topic.listeners.size) {
        if (this._isLive && (!topic.stands || topic.asksAgain)) this._ask(topic, refusal);
      } else if (topic.stands) this._askToEnd(topic);
      else this._left(topic);
    }

    /** Subscribe, or go back to where the topic stands; asking again does no harm. */
    _ask(topic, refusal) {
      topic.asksAgain = false;
      const settle = (error, answer) => {
        topic.request = null;
        if (error) this._endTopic(topic, error);
        else this._stands(topic, answer);
      };
      const frame = () => ({ type: "subscribe", topic: topic.name, ...(topic.listeners.size ? topic.place : {}) });
      const onTrouble = (error) => this._call(this._onError, Object.assign(error, { topic: topic.name }));
      topic.request = this._requests.add(frame, settle, { onTrouble, onLate: () => this._checkTopic(topic.name, true), accepts: isPlace });
      if (refusal) this._requests.again(topic.request, refusal);
      this._requests.pump();
    }

    _stands(topic, answer) {
      topic.stands = true;
      topic.subscribed(answer);
      this._tend(topic);
    }

    _askToEnd(topic) {
      topic.isEnding = true; // what still comes is meant for listeners that have gone
      const settle = (error) => {
        Object.assign(topic, { request: null, stands: false, isEnding: false });
        this._left(topic, error && error.code !== "unknown_topic" ? error : null);
        this._tend(topic);
      };
      topic.request = this._requests.add({ type: "unsubscribe", topic: topic.name }, settle, { giveUpMs: GIVE_UP_MS, accepts: isPlace, onLate: () => this._checkTopic(topic.name, false) });
      this._requests.pump();
    }

    /** A late copy was executed, after other requests about this topic: it is asked for, or ended, once more. */
    _checkTopic(name, mayStand) {
      if (this._topics.has(name)) this._topics.get(name).askAgain();
      else if (mayStand) {
        this._topics.set(name, Object.assign(new Topic(name, this), { stands: true }));
        this._tend(this._topics.get(name));
      }
    }

    /** Those that wait for the end of their subscription are told; a topic that nobody wants and that is not being resumed is forgotten. */
    _left(topic, error = null) {
      for (const settle of topic.leaving.splice(0)) settle(error);
      if (!topic.listeners.size && !this._resumed.has(topic) && this._topics.get(topic.name) === topic) this._topics.delete(topic.name);
    }

    _leave(name, listener) {
      listener.reject(failure({ code: "unsubscribed", message: "unsubscribed", retryable: false }));
      const topic = this._topics.get(name);
      if (!topic || !topic.listeners.has(listener)) return listener.left || Promise.resolve();
      topic.remove(listener);
      if (topic.listeners.size) return (listener.left = Promise.resolve());
      listener.left = new Promise((resolve, reject) => {
        const deadline = after(GIVE_UP_MS, () => reject(failure(this._why())));
        topic.leaving.push((error) => { clearTimeout(deadline); if (error) reject(error); else resolve(); });
      });
      listener.left.catch(() => {}); // for callers that do not ask
      if (topic.request && topic.request.attempt === 0) { // it was never sent
        this._requests.drop(topic.request);
        topic.request = null;
      }
      this._tend(topic);
      return listener.left;
    }

    /** The server will not have this topic; the others are not concerned. */
    _endTopic(topic, error) {
      if (topic.request && topic.request !== RESUMED) this._requests.drop(topic.request);
      Object.assign(topic, { request: null, stands: false, isEnding: false });
      if (topic.listeners.size) this._call(this._onError, Object.assign(error, { topic: topic.name }));
      topic.end(error);
      this._left(topic);
    }

    /** Answers may be on their way behind what is being received, but not for long. */
    _awaitResumed(waitedMs) {
      if (now() - this._requests.heardAt > ANSWER_MS - 1000 || waitedMs > PING_MS) this._askUnresumed();
      else this._resumeTimer = setTimeout(() => this._awaitResumed(waitedMs + 1000), 1000);
    }

    /** What was asked for with the connection and has no answer is asked for one by one. */
    _askUnresumed() {
      for (const topic of [...this._topics.values()].filter((each) => each.request === RESUMED)) {
        topic.request = null;
        topic.stands = !topic.listeners.size; // where it is not wanted any more it may stand, and is ended
        this._tend(topic);
      }
    }

    // What goes out

    _mayHelp(answer, renews = true) {
      return answer.retryable === true || (answer.code === "token_expired" && this._renews && renews);
    }

    _isTooLarge(bytes) {
      return bytes > (this._maxFrameBytes || Infinity) - ENVELOPE_BYTES;
    }

    _tooLarge() {
      return { code: "payload_too_large", message: `The server takes no message of more than ${this._maxFrameBytes} bytes.`, retryable: false };
    }

    _planAck(topic) {
      if (topic.seq === null || topic.manner.ack === false) return;
      this._unacked.set(topic, (this._unacked.get(topic) || 0) + 1);
      if (this._unacked.get(topic) >= ACK_AFTER) this._sendAcks();
      else if (!this._ackTimer) this._ackTimer = setTimeout(() => this._sendAcks(), ACK_AFTER_MS);
    }

    _sendAcks() {
      this._ackTimer = clearTimeout(this._ackTimer);
      const acks = Object.create(null);
      let count = 0;
      for (const topic of this._unacked.keys()) if (topic.stands && !topic.isEnding && topic.seq !== null) { acks[topic.name] = topic.seq; count++; }
      this._unacked.clear();
      if (this._isLive && count) this.socket.emit("message", { type: "ack", acks });
    }

    async _renewToken() {
      if (!this._renews || !this._isLive || this._renewing) return;
      this._renewing = true;
      const attempt = this._attempt;
      const settle = (error) => {
        if (attempt !== this._attempt) return; // the connection has changed
        if (error && error.code === "forbidden") return this._restart(error.message); // it is of another user, who needs a connection of their own
        if (error) {
          this._call(this._onError, error);
          this._renewTimer = setTimeout(() => { this._renewing = false; this._renewToken(); }, backoff(2));
        } else {
          this._renewing = false;
          this._requests.wake();
        }
      };
      try {
        const token = await this._askToken();
        if (attempt !== this._attempt) return;
        this._requests.add({ type: "auth", token }, settle, { renews: false, accepts: (answer) => answer.ok === true });
        this._requests.pump();
      } catch (error) {
        settle(error);
      }
    }
  }

  const api = { connect: (io, url, options) => new Realtime(io, url, options), Realtime };
  if (typeof module === "object" && module.exports) module.exports = api;
  else root.Switchyard = { ...root.Switchyard, ...api };
})(typeof globalThis === "object" ? globalThis : this);
