"use strict";
// The settings and the stored form of an event, shared by all peers, so that the peers differ only in their libraries.
// The peers lack what Switchyard also does while it is measured: a rate limit, metrics, request ids, tokens beside write
// keys, a spool for failures of the storage, limits on the size and depth of `props`, numbers as user ids.

const { randomUUID } = require("node:crypto");

exports.PORT = Number(process.env.PORT);
exports.MONGO_URI = process.env.MONGO_URI;
exports.FILE = process.env.FILE;
exports.COLLECTION = "telemetry_events";
exports.MAX_BODY_BYTES = 512_000;
exports.MAX_EVENTS = 1000;
exports.EVENT_TYPES = ["page", "event", "error", "api", "perf"];
const MAX_SKEW_MS = 60_000;

const writeKeys = new Set([process.env.WRITE_KEY]);

exports.mayWrite = (headers) => {
  const bearer = headers.authorization;
  return writeKeys.has(bearer?.startsWith("Bearer ") ? bearer.slice(7) : headers["x-write-key"]);
};

exports.failure = (code, message) => ({ ok: false, error: { code, message, retryable: false } });

const toMs = (moment) => (typeof moment === "number" ? moment : Date.parse(moment));

// The difference of the client's clock in milliseconds, or 0 where it is too small to correct.
exports.skewOf = (sentAt, now) => {
  const skew = sentAt == null ? 0 : now - toMs(sentAt);
  return Math.abs(skew) > MAX_SKEW_MS ? skew : 0;
};

// `_id` is made from the app and the eventId, so that an event that is sent again is stored once.
exports.toDocument = (event, envelope, now, skew) => {
  const app = event.app ?? envelope.app;
  const document = {
    _id: event.eventId == null ? randomUUID() : `${app}:${event.eventId}`,
    app,
    type: event.type,
    name: event.name,
    props: event.props ?? {},
    ts: event.ts == null ? now : new Date(toMs(event.ts) + skew),
    createdAt: now,
    updatedAt: now,
  };
  for (const field of ["env", "release", "userId", "sessionId", "user"]) {
    const value = event[field] ?? envelope[field];
    if (value != null) document[field] = value;
  }
  return document;
};

exports.answerTo = (documents, rejected, duplicates, storage) => {
  const answer = { ok: true, saved: documents.length, storage };
  if (duplicates) answer.duplicates = duplicates;
  if (rejected.length) answer.rejected = rejected;
  return answer;
};

const DUPLICATE_KEY = 11000;

// An unordered insert stored all documents that the error does not name. A duplicate `_id` is not a failure.
exports.duplicatesIn = (error) => {
  const problems = [error.writeErrors ?? []].flat();
  if (problems.length === 0 || problems.some((problem) => problem.code !== DUPLICATE_KEY)) throw error;
  return problems.length;
};
