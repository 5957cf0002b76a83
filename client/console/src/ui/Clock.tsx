import type { ReactElement } from "react";
import { formatClock, formatDuration } from "../lib/formatDuration";
import { useNow } from "../lib/useNow";

interface Props {
  readonly from: string;
  /** The end; null while it is still running. */
  readonly to: string | null;
}

/** A duration, or the elapsed time so far. */
export function Clock({ from, to }: Props): ReactElement {
  const now = useNow(to === null);
  const length = (to === null ? now : Date.parse(to)) - Date.parse(from);
  return (
    <span className="number">{to === null ? formatClock(length) : formatDuration(length)}</span>
  );
}
