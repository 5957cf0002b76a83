import { useJob } from "@jobcast/client/react";
import { type ReactElement, useCallback, useEffect, useRef, useState } from "react";
import { statusOf } from "../jobs/JobRow";
import type { ListedJob } from "../jobs/jobList";
import { useJobLists } from "../jobs/jobsContext";
import { isUnknown } from "../lib/face";
import { hasMoved } from "../lib/moves";
import { nameOf, shortId } from "../lib/names";
import { messageOf } from "../lib/records";
import { titleOf } from "../lib/title";
import { useNarrow } from "../lib/useNarrow";
import { LogPanel } from "../log/LogPanel";
import { CopyButton } from "../ui/CopyButton";
import { Icon } from "../ui/Icon";
import { Answer } from "./Answer";
import { Facts } from "./Facts";
import { Plot } from "./Plot";
import { ResultPanel } from "./ResultPanel";
import { Timeline } from "./Timeline";
import { useSpokenJob } from "./useSpokenJob";

interface Props {
  readonly jobId: string;
  /** Its entry in the list, if it has one. */
  readonly listed: ListedJob | undefined;
}

export interface Target {
  readonly seq: number;
}

export function JobPage({ jobId, listed }: Props): ReactElement {
  const job = useJob(jobId);
  const heading = useRef<HTMLHeadingElement>(null);
  const [target, setTarget] = useState<Target | null>(null);
  const name = nameOf(jobId, listed?.title ?? null, job.task ?? listed?.task ?? null);
  const title = titleOf(job, name);
  useEffect(() => {
    document.title = title;
  }, [title]);
  useEffect(() => {
    if (hasMoved()) {
      heading.current?.focus();
    }
  }, []);
  useSpokenJob(job);
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
      data-status={statusOf(job)}
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
            <CopyButton small label="Copy the job's id" text={() => jobId} />
          </span>
          {job.task === null ? null : <span className="job-task mono">{job.task}</span>}
        </div>
        {isNarrow ? null : listButton}
      </div>
      <Answer job={job} name={name} onJump={jump} />
      {isRefused || isUnknown(job) ? null : (
        <>
          <Facts job={job} />
          <div className="job-body">
            <div className="job-words">
              {job.status === "complete" ? <ResultPanel result={job.result} /> : null}
              <LogPanel job={job} target={target} />
            </div>
            <div className="job-way">
              <Timeline job={job} />
              <Plot job={job} />
            </div>
          </div>
        </>
      )}
    </article>
  );
}

interface ListButtonProps {
  readonly jobId: string;
  readonly listed: boolean;
  readonly isRefused: boolean;
}

function ListButton({ jobId, listed, isRefused }: ListButtonProps): ReactElement | null {
  const lists = useJobLists();
  const [problem, setProblem] = useState<string | null>(null);
  const remove = (): void => {
    setProblem(null);
    lists.remove(jobId).then(
      () => {
        window.location.hash = "#/";
      },
      (error: unknown) => setProblem(messageOf(error)),
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
        <button type="button" className="button" onClick={() => lists.follow(jobId)}>
          Keep in the list
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
