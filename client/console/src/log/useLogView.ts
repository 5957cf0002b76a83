import type { JobState } from "@jobcast/client";
import { useState } from "react";
import { type LogFilter, type LogView, viewOf } from "../lib/logView";

/** The view of the job's log, which goes on from the one before. */
export function useLogView({ logs, history }: JobState, filter: LogFilter): LogView {
  const [view, setView] = useState<LogView>(() => viewOf({ logs, history }, filter, null));
  if (view.source.logs === logs && view.source.history === history && view.filter === filter) {
    return view;
  }
  const next = viewOf({ logs, history }, filter, view);
  setView(next);
  return next;
}
