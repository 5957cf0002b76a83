// Follows one job with socket.io-client alone and prints each event as one JSON line.
// node follow.mjs URL TOKEN JOB_ID
import { io } from "socket.io-client";

const [url, token, job_id] = process.argv.slice(2);
const print = (event, data) => console.log(JSON.stringify([event, data]));

const socket = io(url, { auth: { token }, reconnection: false });

socket.on("connect", () => {
  socket.emit("join_job", { job_id });
});
for (const event of ["job_progress", "job_log", "job_complete", "job_error"]) {
  socket.on(event, (data) => {
    print(event, data);
    if (event === "job_complete" || event === "job_error") {
      socket.disconnect();
    }
  });
}
socket.on("connect_error", (error) => {
  print("connect_error", { message: error.message, data: error.data });
  socket.disconnect();
});
