/** The page's title, which shows the job's status in the browser tab. */

import type { JobState } from "@jobcast/client";
import { formatPercent } from "./formatNumber";
import { statusBadge } from "./statusBadge";

const NAME = "jobcast";

export function pageTitle(job: JobState | null, name: string): string {
  if (job === null) {
    return NAME;
  }
  const { label } = statusBadge(job);
  const state =
    job.status === "started" && job.percentage !== null
      ? `${formatPercent(job.percentage)} ${label}`
      : label;
  return `${state}: ${name} · ${NAME}`;
}
