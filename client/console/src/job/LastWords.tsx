import type { JobState } from "@jobcast/client";
import { type ReactElement, useMemo } from "react";
import { lastWordsOf } from "../lib/lastWords";
import { timeOf } from "../lib/times";

interface Props {
  readonly job: JobState;
  readonly onJump: (seq: number) => void;
}

/** What an ended job said last, with the way to it in the log. */
export function LastWords({ job, onJump }: Props): ReactElement | null {
  const { logs, status } = job;
  const words = useMemo(() => lastWordsOf({ logs, status }), [logs, status]);
  if (words === null) {
    return null;
  }
  const { title, lines } = words;
  return (
    <div className="last-words">
      <h3>{title}</h3>
      <ul>
        {lines.map((line) => (
          <li key={line.seq}>
            <button
              type="button"
              data-level={line.level}
              onClick={() => onJump(line.seq)}
              title="Show it in the log"
            >
              <span className="number">{timeOf(line.timestamp)}</span>{" "}
              <span className="level">{line.level}</span>{" "}
              <span className="text">{line.message}</span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
