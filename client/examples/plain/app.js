import { createJobClient } from "@jobcast/client";

// A page of your own knows which job it is about, and who is signed in.
const query = new URLSearchParams(location.search);
const server = /** @type {HTMLMetaElement | null} */ (
  document.querySelector('meta[name="jobcast-server"]')
);
const jobId = query.get("job") ?? "";
const client = createJobClient({
  url: server?.content || location.origin,
  getToken: async () => {
    const token = query.get("token"); // for a try; a real page asks its own server
    if (token) return token;
    const response = await fetch("/api/token", { method: "POST" });
    if (!response.ok) throw new Error("sign in first");
    return (await response.json()).token;
  },
});

const job = client.job(jobId);
job.subscribe(() => {
  const state = job.getSnapshot();
  text("status", state.refusal?.message ?? state.status);
  text("message", state.message ?? "");
  text("logs", state.logs.map((line) => `${line.level}: ${line.message}`).join("\n"));
  text("result", state.error?.message ?? JSON.stringify(state.result));
  const bar = /** @type {HTMLProgressElement} */ (document.getElementById("bar"));
  if (state.percentage === null) bar.removeAttribute("value");
  else bar.value = state.percentage;
});

client.connection.subscribe(() => {
  const { state, message } = client.connection.getSnapshot();
  text("connection", state === "connected" ? "" : (message ?? state));
});

/** @type {(id: string, value: string) => void} */
function text(id, value) {
  const element = document.getElementById(id);
  if (element) element.textContent = value;
}
