"use strict";
// One emit per message.

require("./server").serve((namespace, topic, message) => {
  namespace.to(topic).emit("message", { type: "event", topic, ...message, epoch: "peer" });
});
