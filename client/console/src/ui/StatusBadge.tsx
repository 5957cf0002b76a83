import type { ReactElement } from "react";
import type { Badge } from "../lib/statusBadge";
import { Icon } from "./Icon";

export function StatusBadge({ badge }: { readonly badge: Badge }): ReactElement {
  const { label, tone, icon } = badge;
  return (
    <span className="badge" data-tone={tone}>
      <Icon name={icon} />
      <span className="badge-label">{label}</span>
    </span>
  );
}
