"use strict";
// Express and zod without a database: JSON lines appended to a file and synced before each answer.
// It knows no event that is sent again: for that it would need an index of its own.

const { open } = require("node:fs/promises");
const { FILE } = require("./common");
const { serve } = require("./express_app");

open(FILE, "a").then((file) => {
  async function save(documents) {
    await file.write(documents.map((document) => `${JSON.stringify(document)}\n`).join(""));
    await file.sync();
    return 0;
  }
  serve(save, "file");
});
