import { isTerminal, type JobState } from "@jobcast/client";
import { type ReactElement, useMemo, useRef } from "react";
import { formatDuration } from "../lib/formatDuration";
import {
  type PlotFrame,
  plotDescription,
  plotFrame,
  progressCurves,
  runBoundaries,
  statusSpans,
} from "../lib/plot";
import { statusBadge } from "../lib/statusBadge";
import { useNow } from "../lib/useNow";
import { useStore } from "../lib/useStore";
import { useWidth } from "../lib/useWidth";
import { useProgressHistory } from "./progressHistory";

const HEIGHT = 132; // px of the curve
const STATUS_HEIGHT = 8; // px of the status bar below the curve
// Labels scale with the browser's font size.
const FONT_SCALE = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15 || 1;
const MARGIN = { top: 10, right: 12, bottom: 20 * FONT_SCALE, left: 38 * FONT_SCALE };

/** Progress over time, with the job's status below. */
export function Plot({ job }: { readonly job: JobState }): ReactElement | null {
  const progressHistory = useProgressHistory();
  const series = useStore(
    useMemo(() => progressHistory.store(job.jobId), [progressHistory, job.jobId]),
  );
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box) - MARGIN.left - MARGIN.right;
  const now = useNow(!isTerminal(job.status));
  const latest = job.updatedAt === null ? 0 : Date.parse(job.updatedAt);
  const frame = plotFrame(job, series, Math.max(now, latest), { width, height: HEIGHT });
  if (frame === null) {
    return null;
  }
  return (
    <figure className="panel plot" aria-labelledby="plot-title">
      <h2 id="plot-title">Progress over time</h2>
      <div ref={box} className="plot-box">
        {width > 0 ? <Drawing job={job} series={series} frame={frame} /> : null}
      </div>
      <figcaption className="faint">{plotDescription(series, job)}</figcaption>
    </figure>
  );
}

interface DrawingProps {
  readonly job: JobState;
  readonly series: Parameters<typeof progressCurves>[0];
  readonly frame: PlotFrame;
}

/** Hidden from screen readers: the caption and the timeline have the same content. */
function Drawing({ job, series, frame }: DrawingProps): ReactElement {
  const { width, height, from, to } = frame;
  const bottom = height + STATUS_HEIGHT + 4;
  const { tone } = statusBadge(job);
  return (
    <svg
      width={width + MARGIN.left + MARGIN.right}
      height={bottom + MARGIN.top + MARGIN.bottom}
      aria-hidden="true"
      focusable="false"
    >
      <g transform={`translate(${MARGIN.left} ${MARGIN.top})`}>
        {[0, 50, 100].map((level) => (
          <g key={level} className="grid">
            <line x2={width} y1={height * (1 - level / 100)} y2={height * (1 - level / 100)} />
            <text x={-8} y={height * (1 - level / 100)} dy="0.32em" textAnchor="end">
              {level}%
            </text>
          </g>
        ))}
        {statusSpans(job.history, frame).map((span) => (
          <rect
            key={`${span.status} ${span.x}`}
            className="status-span"
            data-status={span.status}
            x={span.x}
            width={span.width}
            y={height + 4}
            height={STATUS_HEIGHT}
          />
        ))}
        {runBoundaries(job.history, frame).map(({ run, x }) => (
          <g key={run} className="boundary">
            <line x1={x} x2={x} y1={0} y2={height + 4} />
            <text
              x={x + (x > width - 40 ? -4 : 4)}
              y={8}
              textAnchor={x > width - 40 ? "end" : "start"}
            >
              run {run}
            </text>
          </g>
        ))}
        {progressCurves(series, job.history, frame).map((curve) => (
          <g key={curve.run} className="curve" data-tone={tone}>
            <path className="area" d={curve.area} />
            <path className="line" d={curve.line} />
            {curve.tip === null ? null : (
              <circle className="tip" cx={curve.tip.x} cy={curve.tip.y} r={3.5} />
            )}
            {curve.unobserved === null ? null : (
              <path className="unobserved" d={curve.unobserved} />
            )}
          </g>
        ))}
        <Ticks width={width} y={bottom + 14 * FONT_SCALE} length={to - from} />
      </g>
    </svg>
  );
}

function Ticks(props: {
  readonly width: number;
  readonly y: number;
  readonly length: number;
}): ReactElement {
  const { width, y, length } = props;
  const anchors = ["start", "middle", "end"] as const;
  return (
    <g className="grid">
      {anchors.map((anchor, index) => (
        <text key={anchor} x={(width * index) / 2} y={y} textAnchor={anchor}>
          {index === 0 ? "0 s" : formatDuration((length * index) / 2)}
        </text>
      ))}
    </g>
  );
}
