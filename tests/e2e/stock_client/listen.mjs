// Joins one job, and prints every event up to the terminal one, one JSON line each.
// node listen.mjs URL TOKEN JOB_ID
import { io } from "socket.io-client";

const [url, token, job_id] = process.argv.slice(2);

const socket = io(url, { auth: { token }, reconnection: false });

socket.on("connect", () => {
  socket.emit("join_job", { job_id });
});
socket.onAny((event, data) => {
  console.log(JSON.stringify([event, data]));
  if (event === "job_complete" || event === "job_error") {
    socket.disconnect();
  }
});
