import type { JobState } from "@jobcast/client";
import { useJob } from "@jobcast/client/react";
import { type ReactElement, useCallback, useEffect, useRef, useState } from "react";
import { rowStatus } from "../jobs/JobRow";
import type { ListedJob } from "../jobs/jobListStore";
import { useJobListStore } from "../jobs/jobsContext";
import { jobName, shortId } from "../lib/jobNames";
import { hasNavigated } from "../lib/navigation";
import { pageTitle } from "../lib/pageTitle";
import { isLoading } from "../lib/statusBadge";
import { errorMessage } from "../lib/untrusted";
import { useNarrow } from "../lib/useNarrow";
import { LogPanel } from "../log/LogPanel";
import { CopyButton } from "../ui/CopyButton";
import { Icon } from "../ui/Icon";
import { JobStats } from "./JobStats";
import { Plot } from "./Plot";
import { ResultPanel } from "./ResultPanel";
import { StatusPanel } from "./StatusPanel";
import { Timeline } from "./Timeline";
import { useJobAnnouncements } from "./useJobAnnouncements";

interface Props {
  readonly jobId: string;
  /** The job's entry in the list, if there is one. */
  readonly listed: ListedJob | undefined;
}

/** A log line to scroll to. */
export interface LogTarget {
  readonly seq: number;
}

export function JobPage({ jobId, listed }: Props): ReactElement {
  const job = useJob(jobId);
  const heading = useRef<HTMLHeadingElement>(null);
  const [target, setTarget] = useState<LogTarget | null>(null);
  const name = jobName(jobId, job.title ?? listed?.title ?? null, job.task ?? listed?.task ?? null);
  const title = pageTitle(job, name);
  useEffect(() => {
    document.title = title;
  }, [title]);
  useEffect(() => {
    if (hasNavigated()) {
      heading.current?.focus();
    }
  }, []);
  useJobAnnouncements(job);
  const jump = useCallback((seq: number) => setTarget({ seq }), []);
  const isRefused = job.joined === "refused";
  const isNarrow = useNarrow();
  const listButton = (
    <ListButton jobId={jobId} listed={listed !== undefined} isRefused={isRefused} />
  );
  return (
    <article
      className="job"
      data-job-id={jobId}
      data-status={rowStatus(job)}
      aria-labelledby="job-title"
    >
      <div className="job-top">
        <a className="back" href="#/">
          <Icon name="back" />
          All jobs
        </a>
        {isNarrow ? listButton : null}
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
          <Tags tags={job.tags} />
        </div>
        {isNarrow ? null : listButton}
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
              <Plot job={job} />
            </div>
          </div>
        </>
      )}
    </article>
  );
}

function Tags({ tags }: Pick<JobState, "tags">): ReactElement | null {
  return tags.length === 0 ? null : (
    <ul className="job-tags" aria-label="Tags">
      {tags.map((tag) => (
        <li key={tag}>{tag}</li>
      ))}
    </ul>
  );
}

interface ListButtonProps {
  readonly jobId: string;
  readonly listed: boolean;
  readonly isRefused: boolean;
}

function ListButton({ jobId, listed, isRefused }: ListButtonProps): ReactElement | null {
  const listStore = useJobListStore();
  const [problem, setProblem] = useState<string | null>(null);
  const remove = (): void => {
    setProblem(null);
    listStore.remove(jobId).then(
      () => {
        window.location.hash = "#/";
      },
      (error: unknown) => setProblem(errorMessage(error)),
    );
  };
  if (!listed && isRefused) {
    return null;
  }
  return (
    <div className="job-actions">
      {listed ? (
        <button type="button" className="button" onClick={remove}>
          Remove from the list
        </button>
      ) : (
        <button type="button" className="button" onClick={() => listStore.follow(jobId)}>
          Add to the list
        </button>
      )}
      {problem === null ? null : (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}
