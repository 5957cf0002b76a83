import { useConnection, useJobSocket } from "@jobcast/client/react";
import type { ReactElement } from "react";

/** The progress, the logs and the outcome of one job. */
export function Job({ jobId }: { jobId: string | null }): ReactElement {
  const { progress, status, message, logs, gaps, result, error, refusal } = useJobSocket(jobId);
  const connection = useConnection();
  return (
    <>
      <h1 id="status">{refusal?.message ?? status}</h1>
      <progress id="bar" max={100} value={progress ?? undefined} aria-label="progress" />
      <p id="message">{message}</p>
      <p id="connection" role="status">
        {connection.state !== "connected" && (connection.message ?? connection.state)}
      </p>
      <p id="gaps">{gaps.length > 0 && "The server no longer stores some of the log lines."}</p>
      <pre id="logs">{logs.map((line) => `${line.level}: ${line.message}`).join("\n")}</pre>
      <pre id="result">{error?.message ?? JSON.stringify(result)}</pre>
    </>
  );
}
