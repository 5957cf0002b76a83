import { createJobClient } from "@jobcast/client";

// A real page knows its job and its user; this one takes both from its address.
const query = new URLSearchParams(location.search);
const server = /** @type {HTMLMetaElement | null} */ (
  document.querySelector('meta[name="jobcast-server"]')
);
const jobId = query.get("job") ?? "";
const client = createJobClient({
  url: server?.content || location.origin,
  getToken: async () => {
    const token = query.get("token"); // for this example only; a real page requests tokens from its own server
    if (token) return token;
    const response = await fetch("/api/token", { method: "POST" });
    if (!response.ok) throw new Error(`no token: HTTP ${response.status}`);
    return (await response.json()).token;
  },
});

const job = client.job(jobId);
job.subscribe(() => {
  const state = job.getSnapshot();
  text("status", state.refusal?.message ?? state.status);
  text("message", state.message ?? "");
  text("gaps", state.gaps.length > 0 ? "The server no longer stores some of the log lines." : "");
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
