import type { JobState } from "@jobcast/client";
import { isTerminal } from "@jobcast/client";
import { useJobClient } from "@jobcast/client/react";
import type { ReactElement } from "react";
import { CancelButton } from "../cancel/CancelButton";
import { activity, headline } from "../lib/headline";
import { isLoading, statusBadge } from "../lib/statusBadge";
import { useNow } from "../lib/useNow";
import { Clamped } from "../ui/Clamped";
import { Icon } from "../ui/Icon";
import { ProgressBar } from "../ui/ProgressBar";
import { LogHighlights } from "./LogHighlights";

interface Props {
  readonly job: JobState;
  readonly name: string;
  readonly onJump: (seq: number) => void;
}

/** The status of a job in one sentence, with its progress, its error and advice. */
export function StatusPanel({ job, name, onJump }: Props): ReactElement {
  const client = useJobClient();
  const { sentence, hint, advice } = headline(job, useNow(!isTerminal(job.status)));
  const badge = statusBadge(job);
  const { tone, icon } = badge;
  const isRefused = job.joined === "refused";
  const loading = isLoading(job);
  return (
    <section className="status-panel" data-tone={tone} aria-label="State" aria-busy={loading}>
      <div className="status-panel-top">
        <span className="status-panel-icon">
          <Icon name={icon} />
        </span>
        <Clamped as="h2">{sentence}</Clamped>
        {isRefused || loading ? null : <CancelButton job={job} name={name} />}
      </div>
      {isRefused || loading ? null : (
        <ProgressBar
          badge={badge}
          percentage={job.status === "complete" ? 100 : job.percentage}
          isMoving={job.percentage === null && job.status === "started" && job.joined === "yes"}
          activity={activity(job)}
          name={name}
        />
      )}
      {job.error === null || isRefused ? null : (
        <div className="error-text">
          <strong>{job.error.error}</strong>
          {job.error.message === "" ? null : <Clamped as="p">{job.error.message}</Clamped>}
        </div>
      )}
      {hint === null ? null : advice === undefined ? (
        <Clamped as="p" className="status-panel-hint">
          {hint}
        </Clamped>
      ) : (
        <p className="status-panel-hint">
          <strong>Cause: </strong>
          {hint}
          <strong> What to do: </strong>
          {advice}
        </p>
      )}
      {isRefused ? (
        <div>
          <button type="button" className="button" onClick={() => client.reconnect()}>
            Try again
          </button>
        </div>
      ) : null}
      {isTerminal(job.status) && !isRefused ? <LogHighlights job={job} onJump={onJump} /> : null}
    </section>
  );
}
