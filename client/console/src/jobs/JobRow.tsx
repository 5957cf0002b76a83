import type { JobState } from "@jobcast/client";
import { memo, type ReactElement, useState } from "react";
import { formatPercent } from "../lib/formatNumber";
import { activity, errorText, headline, statusMessage } from "../lib/headline";
import { jobName, shortId } from "../lib/jobNames";
import { reasonText } from "../lib/reasonText";
import { summarizeResult } from "../lib/resultSummary";
import { jobHash } from "../lib/route";
import { isLoading, statusBadge } from "../lib/statusBadge";
import { errorMessage } from "../lib/untrusted";
import { useNow } from "../lib/useNow";
import { Icon } from "../ui/Icon";
import { ProgressBar } from "../ui/ProgressBar";
import { StatusBadge } from "../ui/StatusBadge";
import type { ListedJob } from "./jobListStore";
import { RowStats } from "./RowStats";

interface Props {
  readonly job: ListedJob;
  readonly state: JobState;
  readonly isOpen: boolean;
  readonly onRemove: (jobId: string) => Promise<void>;
}

/** A job in the list. It renders only when this job changes. */
export const JobRow = memo(function JobRow({ job, state, isOpen, onRemove }: Props): ReactElement {
  const { jobId } = job;
  const [problem, setProblem] = useState<string | null>(null);
  const name = jobName(jobId, state.title ?? job.title, state.task ?? job.task);
  const remove = (): void => {
    setProblem(null);
    onRemove(jobId).catch((error: unknown) => setProblem(errorMessage(error)));
  };
  return (
    <li
      className="row"
      data-job-id={jobId}
      data-status={rowStatus(state)}
      data-open={isOpen || undefined}
    >
      <div className="row-top">
        <a
          className="row-link"
          href={jobHash(jobId)}
          aria-current={isOpen ? "page" : undefined}
          title={jobId}
        >
          {name}
          <span className="visually-hidden"> {shortId(jobId)}</span>
        </a>
        <StatusBadge job={state} />
        {state.status === "started" && state.percentage !== null && state.joined !== "refused" ? (
          <span className="row-percent number">{formatPercent(state.percentage)}</span>
        ) : null}
      </div>
      {hasBar(state) ? <ProgressBar job={state} name={name} /> : null}
      <RowText state={state} />
      <div className="row-bottom">
        <span className="row-id" aria-hidden="true">
          {shortId(jobId)}
        </span>
        <RowStats state={state} sentAt={job.sentAt} />
        <button
          type="button"
          className="button icon-only bare row-remove"
          aria-label={`Remove ${name} ${shortId(jobId)} from the list`}
          title="Remove from the list"
          onClick={remove}
        >
          <Icon name="cross" />
        </button>
      </div>
      {problem === null ? null : (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </li>
  );
});

/** The text of a row: the job's activity, its failure or its result. */
function RowText({ state }: { readonly state: JobState }): ReactElement | null {
  if (state.joined === "refused") {
    return <p className="row-text">{headline(state, 0).sentence}</p>;
  }
  switch (state.status) {
    case "error":
      return <Failure state={state} />;
    case "complete": {
      const summary = summarizeResult(state.result);
      return summary === null ? null : <p className="row-text one-line">{summary}</p>;
    }
    case "retrying":
      return <RetryText state={state} />;
    case "stalled":
      return <p className="row-text">The worker stopped reporting. Waiting for it.</p>;
    case "started": {
      const text = activity(state);
      return text === null ? null : <p className="row-text one-line">{text}</p>;
    }
    default: {
      const text = statusMessage(state);
      return text === null ? null : <p className="row-text one-line">{text}</p>;
    }
  }
}

function Failure({ state }: { readonly state: JobState }): ReactElement | null {
  if (state.error === null) {
    return null;
  }
  const { error, message, reason } = state.error;
  return (
    <p className="row-text">
      <span className="row-error" data-tone={statusBadge(state).tone}>
        {errorText(error, message)}
      </span>{" "}
      <span className="faint">{reasonText(reason).cause}</span>
    </p>
  );
}

function RetryText({ state }: { readonly state: JobState }): ReactElement {
  const { sentence, hint } = headline(state, useNow());
  return (
    <p className="row-text">
      {sentence.replace(/^Retrying: a/, "A")}. <span className="faint">{hint}</span>
    </p>
  );
}

export function rowStatus(state: JobState): string {
  return state.joined === "refused" ? "refused" : isLoading(state) ? "loading" : state.status;
}

function hasBar(state: JobState): boolean {
  if (state.joined === "refused" || state.status === "complete") {
    return false;
  }
  return state.status !== "error" || state.percentage !== null;
}
