/** The title of the page: what a tab in the background says of its job. */

import type { JobState } from "@jobcast/client";
import { faceOf } from "./face";
import { percent } from "./numbers";

const NAME = "jobcast";

export function titleOf(job: JobState | null, name: string): string {
  if (job === null) {
    return NAME;
  }
  const { word } = faceOf(job);
  const state =
    job.status === "started" && job.percentage !== null
      ? `${percent(job.percentage)} ${word}`
      : word;
  return `${state}: ${name} · ${NAME}`;
}
