import type { JobSummary } from "@jobcast/client";
import type { ReactElement } from "react";
import { pluralize } from "../lib/formatNumber";
import { jobName, shortId } from "../lib/jobNames";
import { jobHash } from "../lib/route";
import { badgeOf } from "../lib/statusBadge";
import type { View } from "../lib/view";
import { useFeed } from "../list/feed";
import { ProgressBar } from "../ui/ProgressBar";
import { StatusBadge } from "../ui/StatusBadge";

const SHOWN = 100; // children; more would slow the page down

interface Props {
  readonly jobId: string;
  readonly parent: string | null;
  readonly view: View;
}

/** The job that sent this one, and those of the list that this one has sent. */
export function RelatedJobs({ jobId, parent, view }: Props): ReactElement | null {
  const { jobs } = useFeed();
  const children = jobs.filter((job) => job.parent === jobId).reverse(); // in the order of sending
  if (parent === null && children.length === 0) {
    return null;
  }
  return (
    <section className="panel related" aria-labelledby="related-title">
      <h2 id="related-title">Related jobs</h2>
      {parent === null ? null : (
        <>
          <h3>Sent by</h3>
          <ul>
            <RelatedJob jobId={parent} job={jobs.find((job) => job.jobId === parent)} view={view} />
          </ul>
        </>
      )}
      {children.length === 0 ? null : (
        <>
          <h3>{pluralize(children.length, "job")} sent by this one</h3>
          <ul>
            {children.slice(0, SHOWN).map((job) => (
              <RelatedJob key={job.jobId} jobId={job.jobId} job={job} view={view} />
            ))}
          </ul>
          {children.length > SHOWN ? (
            <p className="faint">{pluralize(children.length - SHOWN, "more job")}</p>
          ) : null}
        </>
      )}
    </section>
  );
}

interface RelatedJobProps {
  readonly jobId: string;
  /** The job in the list, if it is there. */
  readonly job: JobSummary | undefined;
  readonly view: View;
}

function RelatedJob({ jobId, job, view }: RelatedJobProps): ReactElement {
  const name = job ? jobName(jobId, job.title, job.task) : `Job ${shortId(jobId)}`;
  const badge = job && badgeOf(job.status, job.reason);
  return (
    <li className="related-job" data-related-id={jobId}>
      <a href={jobHash(jobId, view)} title={jobId}>
        {name}
      </a>
      {badge ? <StatusBadge badge={badge} /> : null}
      {job && badge && job.status === "started" ? (
        <ProgressBar
          badge={badge}
          percentage={job.percentage}
          isMoving={job.percentage === null}
          activity={job.message}
          name={name}
        />
      ) : null}
    </li>
  );
}
