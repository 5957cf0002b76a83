import type { JobState } from "@jobcast/client";
import { useEffect, useRef } from "react";
import { announcement } from "../lib/announcement";
import { announce } from "../lib/liveRegion";
import { serverNow } from "../lib/serverClock";

/** Announce changes of the open job to screen readers. */
export function useJobAnnouncements(job: JobState): void {
  const before = useRef(job);
  useEffect(() => {
    const text = announcement(before.current, job, serverNow());
    before.current = job;
    if (text !== null) {
      announce(text);
    }
  }, [job]);
}
