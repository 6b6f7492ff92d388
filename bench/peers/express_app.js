"use strict";
// Express with zod: the HTTP part of both Express peers. Each event is parsed by itself, so that a bad event does not affect
// the others.

const express = require("express");
const { z } = require("zod");
const { EVENT_TYPES, MAX_BODY_BYTES, MAX_EVENTS, PORT, answerTo, failure, mayWrite, skewOf, toDocument } = require("./common");

const short = z.string().min(1).max(128).nullish();
const long = z.string().min(1).max(256).nullish();
const moment = z.union([z.number().int().nonnegative(), z.iso.datetime({ offset: true })]).nullish();
const object = z.record(z.string(), z.unknown()).nullish();
const shared = { app: short, env: short, release: short, userId: long, sessionId: long, user: object };

const Envelope = z.object({ ...shared, sentAt: moment, events: z.array(z.unknown()).default([]) });
const Event = z.object({
  ...shared,
  type: z.enum(EVENT_TYPES),
  name: z.string().min(1).max(256),
  ts: moment,
  props: object,
  eventId: short,
});

const sentence = (error) => error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");

function readBatch(envelope) {
  const now = new Date();
  const skew = skewOf(envelope.sentAt, now);
  const documents = [];
  const rejected = [];
  envelope.events.forEach((raw, index) => {
    const { success, data, error } = Event.safeParse(raw);
    if (!success) {
      rejected.push({ index, code: "bad_request", message: sentence(error) });
    } else if (data.app == null && envelope.app == null) {
      rejected.push({ index, code: "bad_request", message: "app: Must stand on the batch or on the event." });
    } else {
      documents.push(toDocument(data, envelope, now, skew));
    }
  });
  return { documents, rejected };
}

// `save(documents)` makes them durable and returns the number of duplicates.
exports.serve = (save, storage) => {
  const app = express();
  app.disable("x-powered-by");
  app.set("etag", false); // no client of this measurement uses it, and it costs a hash per answer

  const mustMayWrite = (request, response, next) =>
    mayWrite(request.headers) ? next() : response.status(401).json(failure("unauthorized", "A write key is needed."));
  const body = express.json({ limit: MAX_BODY_BYTES, type: ["application/json", "text/plain"] });

  app.post("/api/telemetry/batch", mustMayWrite, body, async (request, response) => {
    const { success, data, error } = Envelope.safeParse(request.body);
    if (!success) return response.status(400).json(failure("bad_request", sentence(error)));
    if (data.events.length > MAX_EVENTS) return response.status(413).json(failure("payload_too_large", "Too many events."));
    const { documents, rejected } = readBatch(data);
    const duplicates = documents.length ? await save(documents) : 0;
    return response.json(answerTo(documents, rejected, duplicates, storage));
  });

  app.use((error, request, response, next) => {
    const status = error.status ?? 503;
    if (status === 503) console.error(error);
    response.status(status).json(failure(status === 413 ? "payload_too_large" : "bad_request", error.message));
  });

  app.listen(PORT, "127.0.0.1");
};
