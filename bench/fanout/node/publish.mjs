// Emits from a separate process, as a worker does: reads plans as lines of JSON, answers "done".
import { createInterface } from "node:readline";

import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const client = createClient({ url: process.argv[2] });
await client.connect();
const io = new Emitter(client);

const emit = (job_id, n) =>
  io.to(`job_${job_id}`).emit("job_log", {
    job_id,
    timestamp: new Date().toISOString(),
    seq: n + 1,
    level: "info",
    message: `line ${String(n).padStart(7, "0")} at ${process.hrtime.bigint()}`,
  });

for await (const line of createInterface({ input: process.stdin })) {
  const { jobs, events, rate } = JSON.parse(line);
  const began = performance.now();
  for (let n = 0; n < events; n++) {
    if (rate) {
      const wait = (n / rate) * 1000 - (performance.now() - began);
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    }
    for (const job of jobs) emit(job, n);
    if (!rate) await new Promise((resolve) => setImmediate(resolve));
  }
  await client.ping();
  console.log("done");
}
