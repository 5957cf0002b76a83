import { useJobs } from "@jobcast/client/react";
import type { ReactElement } from "react";

/** The jobs of the user, the newest first. */
export function List({ address }: { address: (jobId: string) => string }): ReactElement {
  const { jobs, status, total, hasMore, isLoadingMore, loadMore, error } = useJobs({
    feed: "mine",
    limit: 20,
  });
  return (
    <>
      <h1>My jobs</h1>
      <p id="state" role="status">
        {error?.message ?? (status === "live" ? `${total} jobs` : "Connecting…")}
      </p>
      <ul id="jobs">
        {jobs.map((job) => (
          <li key={job.jobId}>
            <a href={address(job.jobId)}>{job.title ?? job.task ?? job.jobId}</a>{" "}
            <progress max={100} value={job.percentage ?? undefined} aria-label="progress" />{" "}
            <span>{job.status}</span>
          </li>
        ))}
      </ul>
      {hasMore && (
        <button type="button" onClick={loadMore} disabled={isLoadingMore}>
          Older jobs
        </button>
      )}
    </>
  );
}
