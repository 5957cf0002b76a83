import type { JobState } from "@jobcast/client";
import { useEffect, useRef } from "react";
import { announcement } from "../lib/announcement";
import { serverNow } from "../lib/clock";
import { announce } from "../lib/liveRegion";

/** Tells screen readers what changes about the job that is open. */
export function useSpokenJob(job: JobState): void {
  const before = useRef(job);
  useEffect(() => {
    const text = announcement(before.current, job, serverNow());
    before.current = job;
    if (text !== null) {
      announce(text);
    }
  }, [job]);
}
