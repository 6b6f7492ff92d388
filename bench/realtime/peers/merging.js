"use strict";
// The messages of one tick of a topic leave in one emit.

const waiting = new Map();

require("./server").serve((namespace, topic, message) => {
  if (waiting.size === 0) setImmediate(flush, namespace);
  if (waiting.has(topic)) waiting.get(topic).push(message);
  else waiting.set(topic, [message]);
});

function flush(namespace) {
  for (const [topic, events] of waiting) {
    const frame = events.length === 1
      ? { type: "event", topic, ...events[0], epoch: "peer" }
      : { type: "event", topic, epoch: "peer", first: events[0].seq, last: events.at(-1).seq, events };
    namespace.to(topic).emit("message", frame);
  }
  waiting.clear();
}
