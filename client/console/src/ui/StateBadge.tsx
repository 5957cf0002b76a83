import type { JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { faceOf } from "../lib/face";
import { Icon } from "./Icon";

export function StateBadge({ job }: { readonly job: JobState }): ReactElement {
  const { word, tone, icon } = faceOf(job);
  return (
    <span className="badge" data-tone={tone}>
      <Icon name={icon} />
      {word}
    </span>
  );
}
