import { JobcastProvider } from "@jobcast/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Job } from "./job.tsx";

// What a page of your own knows: the server, who is signed in, and which job it is about.
const query = new URLSearchParams(location.search);

async function getToken(): Promise<string> {
  const token = query.get("token"); // for a try; a real page asks its own server
  if (token) return token;
  const response = await fetch("/api/token", { method: "POST" });
  if (!response.ok) throw new Error("sign in first");
  return (await response.json()).token;
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <JobcastProvider options={{ url: query.get("url") ?? location.origin, getToken }}>
      <Job jobId={query.get("job")} />
    </JobcastProvider>
  </StrictMode>,
);
