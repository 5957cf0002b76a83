import type { JobState } from "@jobcast/client";
import { isTerminal } from "@jobcast/client";
import { useJobClient } from "@jobcast/client/react";
import type { ReactElement } from "react";
import { faceOf, isUnknown } from "../lib/face";
import { headlineOf } from "../lib/headline";
import { useNow } from "../lib/useNow";
import { Clamped } from "../ui/Clamped";
import { Icon } from "../ui/Icon";
import { ProgressBar } from "../ui/ProgressBar";
import { LastWords } from "./LastWords";

interface Props {
  readonly job: JobState;
  readonly name: string;
  readonly onJump: (seq: number) => void;
}

/** The answer to what one came for: where the job is, and why it failed. */
export function Answer({ job, name, onJump }: Props): ReactElement {
  const client = useJobClient();
  const { sentence, hint, advice } = headlineOf(job, useNow(!isTerminal(job.status)));
  const { tone, icon } = faceOf(job);
  const isRefused = job.joined === "refused";
  const isLoading = isUnknown(job);
  return (
    <section className="answer" data-tone={tone} aria-label="State" aria-busy={isLoading}>
      <div className="answer-top">
        <span className="answer-icon">
          <Icon name={icon} />
        </span>
        <Clamped as="h2">{sentence}</Clamped>
      </div>
      {isRefused || isLoading ? null : <ProgressBar job={job} name={name} />}
      {job.error === null || isRefused ? null : (
        <div className="error-text">
          <strong>{job.error.error}</strong>
          {job.error.message === "" ? null : <Clamped as="p">{job.error.message}</Clamped>}
        </div>
      )}
      {hint === null ? null : advice === undefined ? (
        <Clamped as="p" className="answer-hint">
          {hint}
        </Clamped>
      ) : (
        <p className="answer-hint">
          <strong>Why: </strong>
          {hint}
          <strong> What now: </strong>
          {advice}
        </p>
      )}
      {isRefused ? (
        <div className="answer-actions">
          <button type="button" className="button" onClick={() => client.reconnect()}>
            Try again
          </button>
        </div>
      ) : null}
      {isTerminal(job.status) && !isRefused ? <LastWords job={job} onJump={onJump} /> : null}
    </section>
  );
}
