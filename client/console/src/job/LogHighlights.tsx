import type { JobState } from "@jobcast/client";
import { type ReactElement, useMemo } from "react";
import { formatTime } from "../lib/formatTime";
import { logHighlights } from "../lib/logHighlights";

interface Props {
  readonly job: JobState;
  readonly onJump: (seq: number) => void;
}

/** The last warnings and errors of an ended job, as links to the log. */
export function LogHighlights({ job, onJump }: Props): ReactElement | null {
  const { logs, status } = job;
  const highlights = useMemo(() => logHighlights({ logs, status }), [logs, status]);
  if (highlights === null) {
    return null;
  }
  const { title, lines } = highlights;
  return (
    <div className="log-highlights">
      <h3>{title}</h3>
      <ul>
        {lines.map((line) => (
          <li key={line.seq}>
            <button
              type="button"
              data-level={line.level}
              onClick={() => onJump(line.seq)}
              title="Show in the log"
            >
              <span className="number">{formatTime(line.timestamp)}</span>{" "}
              <span className="level">{line.level}</span>{" "}
              <span className="text">{line.message}</span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
