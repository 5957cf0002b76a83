import type { JobSummary } from "@jobcast/client";
import { defaultRangeExtractor, type Range, useVirtualizer } from "@tanstack/react-virtual";
import {
  type FocusEvent,
  type KeyboardEvent,
  type ReactElement,
  useCallback,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from "react";
import { jobHash } from "../lib/route";
import { isShortcut } from "../lib/shortcuts";
import { type View, viewQuery } from "../lib/view";
import { JobRow } from "./JobRow";

interface Props {
  readonly jobs: readonly JobSummary[];
  readonly openId: string | null;
  readonly view: View;
  /** Whether the list has jobs of several owners. */
  readonly isAll: boolean;
  /** Whether jobs are still arriving. */
  readonly isLoading: boolean;
}

const ROW_HEIGHT = 74; // px; the height of a row in a narrow pane
const OVERSCAN = 8; // rows

/** A virtual list of jobs. The focus stays in its row wherever the row moves. */
export function JobList({ jobs, openId, view, isAll, isLoading }: Props): ReactElement {
  const box = useRef<HTMLDivElement>(null);
  const [focusedId, setFocusedId] = useState<string | null>(null);
  const wanted = useRef<string | null>(null); // the row to focus as soon as it is drawn
  const indexOf = (jobId: string | null): number =>
    jobId === null ? -1 : jobs.findIndex((job) => job.jobId === jobId);
  const kept = indexOf(focusedId);
  const virtual = useVirtualizer({
    count: jobs.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW_HEIGHT,
    getItemKey: useCallback((index: number) => jobs[index]?.jobId ?? index, [jobs]),
    overscan: OVERSCAN,
    rangeExtractor: useCallback((range: Range) => rangeWith(range, kept), [kept]),
  });

  const query = viewQuery(view);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another view begins at its top.
  useLayoutEffect(() => {
    box.current?.scrollTo(0, 0);
  }, [query]);

  useRowOfOpenJob(openId, indexOf(openId), isLoading, (index) =>
    virtual.scrollToIndex(index, { align: "center" }),
  );

  const focusRow = (index: number): void => {
    const job = jobs[index];
    if (!job) {
      return;
    }
    if (box.current?.checkVisibility() === false) {
      window.location.hash = jobHash(job.jobId, view); // a hidden link cannot take the focus
      return;
    }
    wanted.current = job.jobId;
    setFocusedId(job.jobId);
    virtual.scrollToIndex(index, { align: "auto" });
  };
  useLayoutEffect(() => {
    const link = wanted.current === null ? null : linkOf(box.current, wanted.current);
    if (link) {
      wanted.current = null;
      link.focus({ preventScroll: true });
    }
  });
  /** Move the focus from the focused or the open row. */
  const move = (by: number): boolean => {
    const row = document.activeElement?.closest<HTMLElement>("[data-job-id]");
    const focused = indexOf(row?.dataset.jobId ?? null);
    const from = focused === -1 ? indexOf(openId) : focused;
    const next = from === -1 ? (by > 0 ? 0 : jobs.length - 1) : from + by;
    focusRow(Math.min(Math.max(next, 0), jobs.length - 1));
    return true;
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const by = STEPS.get(event.key);
    if (by !== undefined && move(by)) {
      event.preventDefault();
    }
  };
  useListKeys(move);
  useFocusOfClosedJob(openId, (jobId) => focusRow(indexOf(jobId)));
  const onBlur = (event: FocusEvent): void => {
    if (event.relatedTarget !== null && !box.current?.contains(event.relatedTarget)) {
      setFocusedId(null);
    }
  };
  const onFocus = (event: FocusEvent): void => {
    const row = event.target.closest<HTMLElement>("[data-job-id]");
    setFocusedId(row?.dataset.jobId ?? null);
  };
  return (
    <div className="rows" ref={box} data-owners={isAll || undefined}>
      <ul
        aria-label="Jobs"
        style={{ height: virtual.getTotalSize() }}
        onFocus={onFocus}
        onBlur={onBlur}
        onKeyDown={onKeyDown}
      >
        {virtual.getVirtualItems().map(({ index, key, start }) => {
          const job = jobs[index];
          return job ? (
            <JobRow
              key={key}
              ref={virtual.measureElement}
              job={job}
              index={index}
              total={jobs.length}
              top={start}
              href={jobHash(job.jobId, view)}
              isOpen={job.jobId === openId}
              hasOwner={isAll}
            />
          ) : null;
        })}
      </ul>
    </div>
  );
}

const STEPS: ReadonlyMap<string, number> = new Map([
  ["ArrowDown", 1],
  ["ArrowUp", -1],
  ["PageDown", 10],
  ["PageUp", -10],
  ["Home", Number.NEGATIVE_INFINITY],
  ["End", Number.POSITIVE_INFINITY],
]);

/** Draw the focused row wherever it is: a removed element would lose the focus. */
function rangeWith(range: Range, kept: number): number[] {
  const indexes = defaultRangeExtractor(range);
  return kept === -1 || indexes.includes(kept)
    ? indexes
    : [...indexes, kept].sort((one, other) => one - other);
}

function linkOf(box: HTMLElement | null, jobId: string): HTMLElement | null {
  const rows = [...(box?.querySelectorAll<HTMLElement>("[data-job-id]") ?? [])];
  return rows.find((row) => row.dataset.jobId === jobId)?.querySelector("a") ?? null;
}

/**
 * The keys `j` and `k` move to the next and the previous job, except while the user types. On a narrow
 * screen, which hides the list next to a job, they open the job.
 */
function useListKeys(move: (by: number) => boolean): void {
  const latest = useRef(move);
  useEffect(() => {
    latest.current = move;
  });
  useEffect(() => {
    const press = (event: globalThis.KeyboardEvent): void => {
      const by = event.key === "j" ? 1 : event.key === "k" ? -1 : null;
      if (by !== null && isShortcut(event) && latest.current(by)) {
        event.preventDefault();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
}

/** When the list appears next to a job, scroll to the job's row. While the list loads, the row moves. */
function useRowOfOpenJob(
  openId: string | null,
  index: number,
  isLoading: boolean,
  scrollTo: (index: number) => void,
): void {
  const isPending = useRef(openId !== null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the row scrolls only where it moves.
  useLayoutEffect(() => {
    if (isPending.current && index !== -1) {
      isPending.current = isLoading;
      scrollTo(index);
    }
  }, [index, isLoading]);
}

/** When the user returns from a job to the list, focus its row. */
function useFocusOfClosedJob(openId: string | null, focus: (jobId: string) => void): void {
  const before = useRef(openId);
  useEffect(() => {
    const closed = before.current;
    before.current = openId;
    // The heading had the focus if its page is gone. Any other focus is the user's choice.
    if (openId === null && closed !== null && document.activeElement === document.body) {
      focus(closed);
    }
  });
}
