// One room per job, behind a verified token, as in socket.io's documentation.
import { createServer } from "node:http";

import { createAdapter } from "@socket.io/redis-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const [url, port] = process.argv.slice(2);
const pub = createClient({ url });
const sub = pub.duplicate();
await Promise.all([pub.connect(), sub.connect()]);

const http = createServer((_, response) => response.end("ok"));
const io = new Server(http, {
  adapter: createAdapter(pub, sub),
  transports: ["websocket"],
  perMessageDeflate: false,
});

io.use((socket, next) => {
  try {
    socket.data.claims = jwt.verify(socket.handshake.auth.token, process.env.SECRET, {
      algorithms: ["HS256"],
      audience: "jobcast",
    });
    next();
  } catch {
    next(new Error("token_invalid"));
  }
});

io.on("connection", (socket) => {
  socket.on("join_job", ({ job_id }, answer) => {
    socket.join(`job_${job_id}`);
    answer({ ok: true });
  });
});

http.listen(Number(port), "127.0.0.1");
