"use strict";
// Express, zod and Mongoose, the most common stack in Node; with `lean`, which saves a document object per event.

const mongoose = require("mongoose");
const { COLLECTION, EVENT_TYPES, MONGO_URI, duplicatesIn } = require("./common");
const { serve } = require("./express_app");

const schema = new mongoose.Schema(
  {
    _id: String,
    app: { type: String, required: true },
    env: String,
    release: String,
    userId: String,
    sessionId: String,
    user: Object,
    type: { type: String, required: true, enum: EVENT_TYPES },
    name: { type: String, required: true },
    props: Object,
    ts: { type: Date, required: true },
    createdAt: Date,
    updatedAt: Date,
  },
  { collection: COLLECTION, versionKey: false, autoIndex: false, minimize: false },
);
const Event = mongoose.model("Event", schema);

async function save(documents) {
  try {
    await Event.insertMany(documents, { lean: true, ordered: false });
    return 0;
  } catch (error) {
    return duplicatesIn(error);
  }
}

mongoose.connect(MONGO_URI).then(() => serve(save, "mongo"));
