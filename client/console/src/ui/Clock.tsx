import type { ReactElement } from "react";
import { clock, span } from "../lib/durations";
import { useNow } from "../lib/useNow";

interface Props {
  readonly from: string;
  /** Null while it runs. */
  readonly to: string | null;
}

/** How long something has taken, or takes so far. */
export function Clock({ from, to }: Props): ReactElement {
  const now = useNow(to === null);
  const length = (to === null ? now : Date.parse(to)) - Date.parse(from);
  return <span className="number">{to === null ? clock(length) : span(length)}</span>;
}
