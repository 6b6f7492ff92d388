"use strict";
// Express and zod without a database: JSON lines, appended to a file and synced before each answer.
// It does not recognise an event that is sent again, which would need an index.

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
