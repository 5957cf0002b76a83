import { useEffect } from "react";
import { setFavicon } from "../lib/favicon";
import { formatCount } from "../lib/formatNumber";
import type { Counts } from "./selection";

/** Show the state of the list in the title and the icon of the tab. */
export function useListTitle({ stuck, running, queued }: Counts, isShown: boolean): void {
  const counts = [
    [stuck, "stuck"],
    [running, "running"],
    [queued, "queued"],
  ] as const;
  const title = counts
    .filter(([count]) => count > 0)
    .map(([count, label]) => `${formatCount(count)} ${label}`)
    .join(", ");
  const tone = stuck > 0 ? "warn" : null;
  useEffect(() => {
    if (isShown) {
      document.title = title === "" ? "jobcast" : `${title} · jobcast`;
      setFavicon(tone === null ? null : { tone, percentage: null });
    }
  }, [title, tone, isShown]);
}
