import { JobcastProvider } from "@jobcast/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Job } from "./job.tsx";
import { List } from "./list.tsx";

// A real page knows its job and its user; this one takes both from its address.
const query = new URLSearchParams(location.search);
const server = document.querySelector<HTMLMetaElement>('meta[name="jobcast-server"]');

const jobId = query.get("job");

function address(jobId: string): string {
  return `?${new URLSearchParams([...query, ["job", jobId]])}`;
}

async function getToken(): Promise<string> {
  const token = query.get("token"); // for this example only; a real page requests tokens from its own server
  if (token) return token;
  const response = await fetch("/api/token", { method: "POST" });
  if (!response.ok) throw new Error(`no token: HTTP ${response.status}`);
  return (await response.json()).token;
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <JobcastProvider options={{ url: server?.content || location.origin, getToken }}>
      {jobId ? <Job jobId={jobId} /> : <List address={address} />}
    </JobcastProvider>
  </StrictMode>,
);
