// Follows one job with socket.io-client across reconnections and keeps a cursor as PROTOCOL.md
// describes. Prints each event as one JSON line.
// node reconnect.mjs URL TOKEN JOB_ID
import { io } from "socket.io-client";

const [url, token, job_id] = process.argv.slice(2);
const print = (event, data) => console.log(JSON.stringify([event, data]));

let after;
const socket = io(url, { auth: { token }, reconnectionDelay: 100, reconnectionDelayMax: 500 });

socket.on("connect", () => {
  print("connect", { transport: socket.io.engine.transport.name });
  socket.emit("join_job", { job_id, after });
});
socket.on("disconnect", (reason) => print("disconnect", { reason }));
socket.on("draining", (data) => print("draining", data));
socket.on("joined", ({ epoch }) => {
  if (after?.epoch !== epoch) {
    after = { epoch, seq: 0 };
  }
});
for (const event of ["job_progress", "job_log", "job_complete", "job_error"]) {
  socket.on(event, (data) => {
    if (data.seq <= after.seq) {
      return;
    }
    after.seq = data.seq;
    print(event, data);
    if (event === "job_complete" || event === "job_error") {
      socket.disconnect();
    }
  });
}
