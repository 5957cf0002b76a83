import { memo, type ReactElement } from "react";
import { errorText } from "../lib/headline";
import { GAP } from "../lib/logText";
import type { LogRow } from "../lib/logView";
import { cut } from "../lib/search";
import { exactTimeOf, timeOf } from "../lib/times";

interface Props {
  readonly row: LogRow;
  readonly needle: string;
  readonly isCurrent: boolean;
}

/** A line of the log, or between its lines a change of the job's state, or a hole. */
export const LogRowView = memo(function LogRowView({
  row,
  needle,
  isCurrent,
}: Props): ReactElement {
  if (row.kind === "gap") {
    return (
      <div className="mark gap">
        <span>{GAP}</span>
      </div>
    );
  }
  if (row.kind === "mark") {
    const { change, label } = row;
    const detail = errorText(change.error, change.message);
    return (
      <div className="mark" data-status={change.status}>
        <span>
          {label}
          {detail === null ? null : `: ${detail}`}
        </span>
        <time dateTime={change.timestamp} title={change.timestamp}>
          {timeOf(change.timestamp)}
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
        {exactTimeOf(timestamp)}
      </time>
      <span className="level">{level}</span>
      <span className="text">
        {attempt === undefined ? null : <em>attempt {attempt}: </em>}
        {cut(message, needle).map(({ text, hit }, index) =>
          // biome-ignore lint/suspicious/noArrayIndexKey: the pieces of a text have nothing but their place.
          hit ? <mark key={index}>{text}</mark> : <span key={index}>{text}</span>,
        )}
      </span>
    </div>
  );
});
