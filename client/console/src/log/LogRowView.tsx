import { memo, type ReactElement } from "react";
import { gapText } from "../lib/formatLog";
import { formatExactTime, formatTime } from "../lib/formatTime";
import type { LogRow } from "../lib/logView";
import { splitMatches } from "../lib/search";
import { changeDetail } from "../lib/timeline";

interface Props {
  readonly row: LogRow;
  readonly needle: string;
  readonly isCurrent: boolean;
}

/** A row of the log: a line, a status change or a gap. */
export const LogRowView = memo(function LogRowView({
  row,
  needle,
  isCurrent,
}: Props): ReactElement {
  if (row.kind === "gap") {
    return (
      <div className="log-marker gap">
        <span>{gapText(row.end === null ? null : formatExactTime(row.end))}</span>
      </div>
    );
  }
  if (row.kind === "change") {
    const { change, label } = row;
    const detail = changeDetail(change);
    return (
      <div className="log-marker" data-status={change.status}>
        <span>
          {label}
          {detail === null ? null : `: ${detail}`}
        </span>
        <time dateTime={change.timestamp} title={change.timestamp}>
          {formatTime(change.timestamp)}
        </time>
      </div>
    );
  }
  const { timestamp, level, message, attempt } = row.line;
  return (
    <div
      className="line"
      data-level={level}
      data-seq={row.seq}
      data-current={isCurrent || undefined}
    >
      <time dateTime={timestamp} title={timestamp}>
        {formatExactTime(timestamp)}
      </time>
      <span className="level">{level}</span>
      <span className="text">
        {attempt === undefined ? null : <em>attempt {attempt}: </em>}
        {splitMatches(message, needle).map(({ text, hit }, index) =>
          // biome-ignore lint/suspicious/noArrayIndexKey: segments are identified by their position.
          hit ? <mark key={index}>{text}</mark> : <span key={index}>{text}</span>,
        )}
      </span>
    </div>
  );
});
