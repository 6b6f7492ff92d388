"use strict";
// Topics on plain socket.io, with the frames of Switchyard's /realtime. The peer has what a team would write in an hour: rooms, a
// number per message, a callback for the publisher. It has no log, resume, acknowledgements, tokens, rates or bounds.
//
// `deliver(io, topic, message)` is how a message leaves: plain.js and merging.js each give their own.

const { createServer } = require("node:http");
const { Server } = require("socket.io");

exports.serve = (deliver) => {
  const http = createServer((_request, response) => response.end("ok"));
  const namespace = new Server(http, { transports: ["websocket"] }).of("/realtime");
  const heads = new Map();
  namespace.on("connection", (socket) => {
    socket.on("message", (frame, answer) => {
      const { type, topic, id } = frame;
      if (type === "subscribe") {
        socket.join(topic);
        answer({ type: "ack", id, ok: true, topic, seq: heads.get(topic) ?? 0, epoch: "peer" });
      } else if (type === "publish") {
        const seq = (heads.get(topic) ?? 0) + 1;
        heads.set(topic, seq);
        deliver(namespace, topic, { payload: frame.payload, id, seq, ts: Date.now() });
        answer({ type: "ack", id, ok: true, topic, seq, epoch: "peer" });
      }
    });
  });
  http.listen(Number(process.env.PORT), "127.0.0.1");
};
