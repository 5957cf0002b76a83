import type { JobState } from "@jobcast/client";
import { useJob } from "@jobcast/client/react";
import { type ReactElement, useCallback, useEffect, useRef, useState } from "react";
import { setFavicon } from "../lib/favicon";
import { jobName, shortId } from "../lib/jobNames";
import { hasNavigated } from "../lib/navigation";
import { pageTitle } from "../lib/pageTitle";
import { listHash } from "../lib/route";
import { isLoading, shownStatus, statusBadge } from "../lib/statusBadge";
import type { View } from "../lib/view";
import { useSummary } from "../list/feed";
import { LogPanel } from "../log/LogPanel";
import { CopyButton } from "../ui/CopyButton";
import { Icon } from "../ui/Icon";
import { JobAbout } from "./JobAbout";
import { JobStats } from "./JobStats";
import { Plot } from "./Plot";
import { RelatedJobs } from "./RelatedJobs";
import { ResultPanel } from "./ResultPanel";
import { StatusPanel } from "./StatusPanel";
import { Timeline } from "./Timeline";
import { useJobAnnouncements } from "./useJobAnnouncements";

interface Props {
  readonly jobId: string;
  /** What the list next to the job shows. */
  readonly view: View;
}

/** A log line to scroll to. */
export interface LogTarget {
  readonly seq: number;
}

export function JobPage({ jobId, view }: Props): ReactElement {
  const job = useJob(jobId);
  const summary = useSummary(jobId);
  const heading = useRef<HTMLHeadingElement>(null);
  const [target, setTarget] = useState<LogTarget | null>(null);
  const name = jobName(
    jobId,
    job.title ?? summary?.title ?? null,
    job.task ?? summary?.task ?? null,
  );
  const title = pageTitle(job, name);
  useEffect(() => {
    document.title = title;
  }, [title]);
  useEffect(() => {
    if (hasNavigated()) {
      heading.current?.focus();
    }
  }, []);
  useJobFavicon(job);
  useJobAnnouncements(job);
  const jump = useCallback((seq: number) => setTarget({ seq }), []);
  const isRefused = job.joined === "refused";
  return (
    <article
      className="job"
      data-job-id={jobId}
      data-status={shownStatus(job)}
      aria-labelledby="job-title"
    >
      <div className="job-top">
        <a className="back" href={listHash(view)}>
          <Icon name="back" />
          All jobs
        </a>
        <div className="job-name">
          <h1 id="job-title" ref={heading} tabIndex={-1}>
            {name}
          </h1>
          <span className="job-id">
            {name.includes(jobId) ? null : (
              <span className="mono" title={jobId}>
                {shortId(jobId)}
              </span>
            )}
            <CopyButton small label="Copy the job id" text={() => jobId} />
          </span>
          {job.task === null ? null : <span className="job-task mono">{job.task}</span>}
        </div>
        <a className="button icon-only bare close" href={listHash(view)} aria-label="Close the job">
          <Icon name="cross" />
        </a>
      </div>
      <StatusPanel job={job} name={name} onJump={jump} />
      {isRefused || isLoading(job) ? null : (
        <>
          <JobStats job={job} />
          <div className="job-body">
            <div className="job-output">
              {job.status === "complete" ? <ResultPanel result={job.result} /> : null}
              <LogPanel job={job} target={target} />
            </div>
            <div className="job-aside">
              <Timeline job={job} />
              <RelatedJobs jobId={jobId} parent={job.parent} view={view} />
              <JobAbout job={job} view={view} />
              <Plot job={job} />
            </div>
          </div>
        </>
      )}
    </article>
  );
}

/** Show the progress of the job in the icon of the tab. */
function useJobFavicon(job: JobState): void {
  const { tone } = statusBadge(job);
  const isKnown = job.joined !== "refused" && !isLoading(job);
  const percentage = job.status === "started" ? (job.percentage ?? 0) : 100;
  useEffect(() => setFavicon(isKnown ? { tone, percentage } : null), [isKnown, tone, percentage]);
}
