import { JobcastProvider } from "@jobcast/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Job } from "./job.tsx";

// A page of your own knows which job it is about, and who is signed in.
const query = new URLSearchParams(location.search);
const server = document.querySelector<HTMLMetaElement>('meta[name="jobcast-server"]');

async function getToken(): Promise<string> {
  const token = query.get("token"); // for a try; a real page asks its own server
  if (token) return token;
  const response = await fetch("/api/token", { method: "POST" });
  if (!response.ok) throw new Error("sign in first");
  return (await response.json()).token;
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <JobcastProvider options={{ url: server?.content || location.origin, getToken }}>
      <Job jobId={query.get("job")} />
    </JobcastProvider>
  </StrictMode>,
);
