// Virtual time and seeded randomness for the whole process: load this before the client. `later` is for the world, setTimeout for the client.
"use strict";

const queue = [];
let [now, order, state] = [0, 0, 1];

function random() { // mulberry32
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

function add(ms, act, owner) {
  const entry = { at: now + Math.max(0, Number(ms) || 0), order: order++, act, owner };
  let index = queue.length;
  while (index > 0 && queue[index - 1].at > entry.at) index--;
  queue.splice(index, 0, entry);
  return entry;
}

function cancel(entry) {
  const index = queue.indexOf(entry);
  if (index >= 0) queue.splice(index, 1);
}

const settled = () => new Promise((resolve) => setImmediate(resolve)); // after all promises that can

async function run(until) {
  await settled();
  while (queue.length && queue[0].at <= until) {
    const entry = queue.shift();
    now = entry.at;
    entry.act();
    await settled();
  }
  now = until;
}

function seed(value) {
  queue.length = 0;
  [now, order, state] = [0, 0, value * 2654435761 | 0];
}

Math.random = random;
Date.now = () => 1700000000000; // durations do not depend on the wall clock
Object.defineProperty(globalThis, "performance", { value: { now: () => now }, configurable: true });
globalThis.setTimeout = (act, ms) => add(ms, act, "client");
globalThis.clearTimeout = cancel;

module.exports = { later: (ms, act) => add(ms, act, "world"), run, seed, random, time: () => now, timersLeft: () => queue.filter((entry) => entry.owner === "client").length };
