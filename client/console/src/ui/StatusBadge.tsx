import type { JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { statusBadge } from "../lib/statusBadge";
import { Icon } from "./Icon";

export function StatusBadge({ job }: { readonly job: JobState }): ReactElement {
  const { label, tone, icon } = statusBadge(job);
  return (
    <span className="badge" data-tone={tone}>
      <Icon name={icon} />
      <span className="badge-label">{label}</span>
    </span>
  );
}
