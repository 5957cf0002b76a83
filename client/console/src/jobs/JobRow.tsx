import type { JobState } from "@jobcast/client";
import { memo, type ReactElement, useState } from "react";
import { faceOf, isUnknown } from "../lib/face";
import { doing, errorText, headlineOf } from "../lib/headline";
import { nameOf, shortId } from "../lib/names";
import { percent } from "../lib/numbers";
import { reasonWords } from "../lib/reasons";
import { messageOf } from "../lib/records";
import { hashOf } from "../lib/route";
import { summaryOf } from "../lib/summary";
import { useNow } from "../lib/useNow";
import { Icon } from "../ui/Icon";
import { ProgressBar } from "../ui/ProgressBar";
import { StateBadge } from "../ui/StateBadge";
import type { ListedJob } from "./jobList";
import { RowFacts } from "./RowFacts";

interface Props {
  readonly job: ListedJob;
  readonly state: JobState;
  readonly isOpen: boolean;
  readonly onRemove: (jobId: string) => Promise<void>;
}

/** A job in the list. Rendered again only when something of this job has changed. */
export const JobRow = memo(function JobRow({ job, state, isOpen, onRemove }: Props): ReactElement {
  const { jobId } = job;
  const [problem, setProblem] = useState<string | null>(null);
  const name = nameOf(jobId, job.title, state.task ?? job.task);
  const remove = (): void => {
    setProblem(null);
    onRemove(jobId).catch((error: unknown) => setProblem(messageOf(error)));
  };
  return (
    <li
      className="row"
      data-job-id={jobId}
      data-status={statusOf(state)}
      data-open={isOpen || undefined}
    >
      <div className="row-top">
        <a
          className="row-link"
          href={hashOf(jobId)}
          aria-current={isOpen ? "page" : undefined}
          title={jobId}
        >
          {name}
          <span className="visually-hidden"> {shortId(jobId)}</span>
        </a>
        <StateBadge job={state} />
        {state.status === "started" && state.percentage !== null && state.joined !== "refused" ? (
          <span className="row-percent number">{percent(state.percentage)}</span>
        ) : null}
      </div>
      {hasBar(state) ? <ProgressBar job={state} name={name} /> : null}
      <RowWords state={state} />
      <div className="row-bottom">
        <span className="row-id" aria-hidden="true">
          {shortId(jobId)}
        </span>
        <RowFacts state={state} sentAt={job.sentAt} />
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

/** What a row says besides its state: what the job does, or why it failed, or what came of it. */
function RowWords({ state }: { readonly state: JobState }): ReactElement | null {
  if (state.joined === "refused") {
    return <p className="row-words">{headlineOf(state, 0).sentence}</p>;
  }
  switch (state.status) {
    case "error":
      return <Failure state={state} />;
    case "complete": {
      const summary = summaryOf(state.result);
      return summary === null ? null : <p className="row-words one-line">{summary}</p>;
    }
    case "retrying":
      return <RetryWords state={state} />;
    case "stalled":
      return <p className="row-words">Its worker is not heard of any more. Waiting for it.</p>;
    case "started": {
      const words = doing(state);
      return words === null ? null : <p className="row-words one-line">{words}</p>;
    }
    default:
      return null;
  }
}

function Failure({ state }: { readonly state: JobState }): ReactElement | null {
  if (state.error === null) {
    return null;
  }
  const { error, message, reason } = state.error;
  return (
    <p className="row-words">
      <span className="row-error" data-tone={faceOf(state).tone}>
        {errorText(error, message)}
      </span>{" "}
      <span className="faint">{reasonWords(reason).why}</span>
    </p>
  );
}

function RetryWords({ state }: { readonly state: JobState }): ReactElement {
  const { sentence, hint } = headlineOf(state, useNow());
  return (
    <p className="row-words">
      {sentence.replace(/^Retrying: a/, "A")}. <span className="faint">{hint}</span>
    </p>
  );
}

export function statusOf(state: JobState): string {
  return state.joined === "refused" ? "refused" : isUnknown(state) ? "loading" : state.status;
}

function hasBar(state: JobState): boolean {
  if (state.joined === "refused" || state.status === "complete") {
    return false;
  }
  return state.status !== "error" || state.percentage !== null;
}
