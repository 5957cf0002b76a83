import type { JobState } from "@jobcast/client";
import { useJobClient, useJobs } from "@jobcast/client/react";
import {
  type KeyboardEvent,
  type ReactElement,
  useCallback,
  useEffect,
  useMemo,
  useRef,
} from "react";
import { type Bucket, bucketOf } from "../lib/face";
import { announce } from "../lib/liveRegion";
import { count } from "../lib/numbers";
import { hash, routeOf } from "../lib/route";
import { Icon } from "../ui/Icon";
import { FollowForm } from "./FollowForm";
import { type Counts, type Filter, JobFilter } from "./JobFilter";
import { JobRow } from "./JobRow";
import type { JobList, ListedJob } from "./jobList";
import { useJobLists } from "./jobsContext";
import { KeyHints } from "./KeyHints";
import { moveFocus, useListKeys } from "./listKeys";

interface Props {
  readonly list: JobList;
  readonly shown: readonly ListedJob[];
  readonly openId: string | null;
  readonly filter: Filter;
  readonly onFilter: (filter: Filter) => void;
  readonly onMore: () => void;
}

/** The list. It alone is rendered with every frame of any job in it. */
export function JobsPane({ list, shown, openId, filter, onFilter, onMore }: Props): ReactElement {
  const lists = useJobLists();
  const rows = useRef<HTMLUListElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const states = useJobs(useMemo(() => shown.map(({ jobId }) => jobId), [shown]));
  const counts = useMemo(() => countsOf(states), [states]);
  useRefusedAgain(states);
  useListKeys(rows);

  const onRemove = useCallback(
    async (jobId: string): Promise<void> => {
      const next = neighbour(rows.current, jobId); // while its row is there
      await lists.remove(jobId);
      announce("Removed from the list");
      (next?.isConnected ? next : heading.current)?.focus();
      const open = routeOf(hash.getSnapshot());
      if (open.page === "job" && open.jobId === jobId) {
        window.location.hash = "#/";
      }
    },
    [lists],
  );
  const onKeyDown = (event: KeyboardEvent): void => {
    const way = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : null;
    if (way !== null && moveFocus(rows.current, way) !== null) {
      event.preventDefault();
    }
  };

  const visible = shown.flatMap((job, index) => {
    const state = states[index];
    return state && (filter === "all" || bucketOf(state) === filter) ? [{ job, state }] : [];
  });
  const rest = list.jobs.length - shown.length;
  return (
    <nav className="pane" aria-label="Jobs">
      <div className="pane-top">
        <h2 ref={heading} tabIndex={-1}>
          Jobs
        </h2>
        <a
          className="button primary"
          href="#/start"
          aria-current={openId === null ? "page" : undefined}
        >
          <Icon name="plus" />
          Start a job
        </a>
      </div>
      <JobFilter
        counts={counts}
        total={list.jobs.length}
        looked={shown.length}
        chosen={filter}
        onChoose={onFilter}
      />
      {list.problem === null ? null : (
        <div className="pane-problem" role="alert">
          <p>The list of jobs cannot be loaded. {list.problem}</p>
          <button type="button" className="button" onClick={() => void lists.refresh()}>
            Try again
          </button>
        </div>
      )}
      {visible.length > 0 ? (
        <ul className="rows" ref={rows} aria-label="Followed jobs" onKeyDown={onKeyDown}>
          {visible.map(({ job, state }) => (
            <JobRow
              key={job.jobId}
              job={job}
              state={state}
              isOpen={job.jobId === openId}
              onRemove={onRemove}
            />
          ))}
        </ul>
      ) : (
        <Empty list={list} looked={shown.length} filter={filter} />
      )}
      {rest > 0 ? (
        <button type="button" className="button more" onClick={onMore}>
          Show {count(Math.min(rest, 50))} older jobs
        </button>
      ) : null}
      <FollowForm />
      <KeyHints />
    </nav>
  );
}

function Empty({
  list,
  looked,
  filter,
}: {
  readonly list: JobList;
  readonly looked: number;
  readonly filter: Filter;
}): ReactElement {
  if (list.state === "loading") {
    return (
      <div className="empty" aria-busy="true">
        Loading the list…
      </div>
    );
  }
  return list.jobs.length === 0 ? (
    <div className="empty">
      <strong>No jobs yet.</strong> Those that you start show up here, and so do those that you
      follow by their id.
    </div>
  ) : (
    <div className="empty">
      None of {looked < list.jobs.length ? `the ${count(looked)} latest` : "these"} jobs is{" "}
      {filter === "all" ? "shown" : filter}.
    </div>
  );
}

/** What was refused may be there by the time that somebody looks again. */
function useRefusedAgain(states: readonly JobState[]): void {
  const client = useJobClient();
  const someRefused = states.some(({ joined }) => joined === "refused");
  useEffect(() => {
    const again = (): void => client.reconnect();
    if (someRefused) {
      window.addEventListener("focus", again);
    }
    return () => window.removeEventListener("focus", again);
  }, [client, someRefused]);
}

function countsOf(states: readonly JobState[]): Counts {
  const counts: Record<Exclude<Filter, "all"> | Bucket, number> = {
    active: 0,
    failed: 0,
    done: 0,
    none: 0,
  };
  for (const state of states) {
    counts[bucketOf(state)] += 1;
  }
  return counts;
}

/** The row to go to when that of a job is gone. */
function neighbour(list: HTMLUListElement | null, jobId: string): HTMLElement | null {
  const all = [...(list?.querySelectorAll<HTMLElement>("[data-job-id]") ?? [])];
  const at = all.findIndex((row) => row.getAttribute("data-job-id") === jobId);
  const next = at === -1 ? undefined : (all[at + 1] ?? all[at - 1]);
  return next?.querySelector("a") ?? null;
}
