import type { JobState } from "@jobcast/client";
import { useState } from "react";
import { buildLogView, type LogFilter, type LogView } from "../lib/logView";

/** Return the view of the job's log, updated from the previous view. */
export function useLogView({ logs, history, gaps }: JobState, filter: LogFilter): LogView {
  const [view, setView] = useState<LogView>(() =>
    buildLogView({ logs, history, gaps }, filter, null),
  );
  const { source } = view;
  const isSame = source.logs === logs && source.history === history && source.gaps === gaps;
  if (isSame && view.filter === filter) {
    return view;
  }
  const next = buildLogView({ logs, history, gaps }, filter, view);
  setView(next);
  return next;
}
