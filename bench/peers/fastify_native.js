"use strict";
// Fastify, its validator (ajv) and the plain MongoDB driver: the fast stack in Node.

const { default: Ajv } = require("ajv");
const fastify = require("fastify");
const { MongoClient } = require("mongodb");
const common = require("./common");
const { COLLECTION, EVENT_TYPES, MAX_BODY_BYTES, MAX_EVENTS, MONGO_URI, PORT } = common;

const short = { type: ["string", "null"], minLength: 1, maxLength: 128 };
const long = { type: ["string", "null"], minLength: 1, maxLength: 256 };
const moment = { type: ["integer", "string", "null"], minimum: 0, pattern: "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d" };
const object = { type: ["object", "null"] };
const shared = { app: short, env: short, release: short, userId: long, sessionId: long, user: object };

const envelopeSchema = { type: "object", properties: { ...shared, sentAt: moment, events: { type: "array" } } };
const eventSchema = {
  type: "object",
  required: ["type", "name"],
  properties: {
    ...shared,
    type: { enum: EVENT_TYPES },
    name: { type: "string", minLength: 1, maxLength: 256 },
    ts: moment,
    props: object,
    eventId: short,
  },
};
const savedSchema = {
  type: "object",
  properties: {
    ok: { type: "boolean" },
    saved: { type: "integer" },
    storage: { type: "string" },
    duplicates: { type: "integer" },
    rejected: {
      type: "array",
      items: {
        type: "object",
        properties: { index: { type: "integer" }, code: { type: "string" }, message: { type: "string" } },
      },
    },
  },
};

// Fastify rejects a whole body for one mistake in it. Therefore the route's schema covers the envelope, and each event is
// validated on its own by ajv.
const isEvent = new Ajv({ allowUnionTypes: true }).compile(eventSchema);

function readBatch(envelope) {
  const now = new Date();
  const skew = common.skewOf(envelope.sentAt, now);
  const documents = [];
  const rejected = [];
  (envelope.events ?? []).forEach((event, index) => {
    if (!isEvent(event)) {
      const [{ instancePath, message }] = isEvent.errors;
      rejected.push({ index, code: "bad_request", message: `${instancePath} ${message}` });
    } else if (event.app == null && envelope.app == null) {
      rejected.push({ index, code: "bad_request", message: "app must stand on the batch or on the event" });
    } else {
      documents.push(common.toDocument(event, envelope, now, skew));
    }
  });
  return { documents, rejected };
}

async function main() {
  const client = await new MongoClient(MONGO_URI).connect();
  const events = client.db().collection(COLLECTION);

  async function save(documents) {
    try {
      await events.insertMany(documents, { ordered: false });
      return 0;
    } catch (error) {
      return common.duplicatesIn(error);
    }
  }

  const app = fastify({ bodyLimit: MAX_BODY_BYTES, ajv: { customOptions: { coerceTypes: false, allowUnionTypes: true } } });
  app.addContentTypeParser("text/plain", { parseAs: "string" }, app.getDefaultJsonParser("error", "error"));
  await app.register(require("@fastify/compress"), { globalCompression: false });

  const onRequest = async (request, reply) => {
    if (!common.mayWrite(request.headers)) await reply.code(401).send(common.failure("unauthorized", "A write key is needed."));
  };
  const schema = { body: envelopeSchema, response: { 200: savedSchema } };
  app.post("/api/telemetry/batch", { onRequest, schema }, async (request, reply) => {
    if (request.body.events?.length > MAX_EVENTS) {
      return reply.code(413).send(common.failure("payload_too_large", "Too many events."));
    }
    const { documents, rejected } = readBatch(request.body);
    const duplicates = documents.length ? await save(documents) : 0;
    return common.answerTo(documents, rejected, duplicates, "mongo");
  });

  await app.listen({ port: PORT, host: "127.0.0.1" });
}

main();
