import type { JobSummary } from "@jobcast/client";
import { memo, type ReactElement, type Ref } from "react";
import { elapsed, formatAge, formatClock, formatDuration } from "../lib/formatDuration";
import { formatPercent } from "../lib/formatNumber";
import { formatDateTime } from "../lib/formatTime";
import { jobName, shortId } from "../lib/jobNames";
import { reasonText } from "../lib/reasonText";
import { badgeOf } from "../lib/statusBadge";
import { useNow } from "../lib/useNow";
import { ProgressBar } from "../ui/ProgressBar";
import { StatusBadge } from "../ui/StatusBadge";
import { attemptText, hasEnded, isWaiting, stuckReason } from "./stuck";

interface Props {
  readonly ref: Ref<HTMLLIElement>;
  readonly job: JobSummary;
  /** The position in the list, from 0. */
  readonly index: number;
  /** The number of jobs in the list. */
  readonly total: number;
  /** The position in px. */
  readonly top: number;
  readonly href: string;
  readonly isOpen: boolean;
  readonly hasOwner: boolean;
}

/** A job in the list. It renders only when this job changes or moves, and once a second. */
export const JobRow = memo(function JobRow({
  ref,
  job,
  index,
  total,
  top,
  href,
  isOpen,
  hasOwner,
}: Props): ReactElement {
  const now = useNow();
  const name = jobName(job.jobId, job.title, job.task);
  const stuck = stuckReason(job, now);
  const badge = badgeOf(job.status, job.reason);
  const text = stuck?.reason ?? activity(job);
  return (
    <li
      ref={ref}
      className="row"
      style={{ transform: `translateY(${top}px)` }}
      aria-posinset={index + 1}
      aria-setsize={total}
      data-index={index}
      data-job-id={job.jobId}
      data-status={job.status}
      data-text={text ? true : undefined}
      data-stuck={stuck === null ? undefined : true}
      data-open={isOpen || undefined}
    >
      <a
        className="row-link"
        href={href}
        aria-current={isOpen ? "page" : undefined}
        title={job.jobId}
      >
        {name}
        <span className="visually-hidden"> {shortId(job.jobId)}</span>
      </a>
      <StatusBadge badge={badge} />
      <span className="row-percent number">
        {job.percentage === null || hasEnded(job) ? null : formatPercent(job.percentage)}
      </span>
      <span className="row-bar">
        {hasBar(job) ? (
          <ProgressBar
            badge={badge}
            percentage={job.percentage}
            isMoving={job.percentage === null && job.status === "started"}
            activity={job.message}
            name={name}
          />
        ) : null}
      </span>
      <span className="row-text" data-tone={stuck === null ? badge.tone : "warn"}>
        {text}
      </span>
      <span className="row-meta">
        {job.tags.length === 0 ? null : (
          <span className="row-tags">
            {job.tags.map((tag) => (
              <span key={tag} className="row-tag">
                {tag}
              </span>
            ))}
          </span>
        )}
        {hasOwner && job.owner !== null ? <span className="row-owner">{job.owner}</span> : null}
        <span className="row-id" aria-hidden="true">
          {shortId(job.jobId)}
        </span>
      </span>
      <RowTime job={job} now={now} />
    </li>
  );
});

/** How long the job has waited or run, or when it ended. */
function RowTime({ job, now }: { readonly job: JobSummary; readonly now: number }): ReactElement {
  const { createdAt, startedAt, endedAt } = job;
  const since = isWaiting(job) ? createdAt : (startedAt ?? createdAt);
  const took = elapsed(startedAt, endedAt);
  const text =
    endedAt === null
      ? formatClock(now - Date.parse(since))
      : [took === null ? null : formatDuration(took), formatAge(now - Date.parse(endedAt))]
          .filter((part) => part !== null)
          .join(" · ");
  return (
    <span className="row-time number" title={`Sent ${formatDateTime(createdAt)}`}>
      {text}
    </span>
  );
}

/** What the job does, or why it ended. */
function activity(job: JobSummary): string | null {
  switch (job.status) {
    case "error":
      return job.message || (job.reason && reasonText(job.reason).cause);
    case "retrying":
      return attemptText(job);
    case "complete":
      return null;
    default:
      return job.message;
  }
}

function hasBar(job: JobSummary): boolean {
  return !hasEnded(job) && (job.percentage !== null || job.status === "started");
}
