import type { JobState } from "@jobcast/client";
import { useState } from "react";
import { type LogFilter, type LogView, viewOf } from "../lib/logView";

/** The view of the job's log, which goes on from the one before. */
export function useLogView({ logs, history, gaps }: JobState, filter: LogFilter): LogView {
  const [view, setView] = useState<LogView>(() => viewOf({ logs, history, gaps }, filter, null));
  const { source } = view;
  const isSame = source.logs === logs && source.history === history && source.gaps === gaps;
  if (isSame && view.filter === filter) {
    return view;
  }
  const next = viewOf({ logs, history, gaps }, filter, view);
  setView(next);
  return next;
}
