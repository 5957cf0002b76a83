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
import { pluralize } from "../lib/formatNumber";
import { announce } from "../lib/liveRegion";
import { hash, parseRoute } from "../lib/route";
import { type FilterGroup, filterGroup } from "../lib/statusBadge";
import { useSite } from "../site";
import { Icon } from "../ui/Icon";
import { FollowForm } from "./FollowForm";
import { type Counts, type Filter, JobFilter } from "./JobFilter";
import { JobRow } from "./JobRow";
import type { JobList, ListedJob } from "./jobListStore";
import { useJobListStore } from "./jobsContext";
import { ShortcutHints } from "./ShortcutHints";
import { moveFocus, useListKeys } from "./useListKeys";

interface Props {
  readonly list: JobList;
  readonly shown: readonly ListedJob[];
  readonly openId: string | null;
  readonly filter: Filter;
  readonly onFilter: (filter: Filter) => void;
  readonly onMore: () => void;
}

/** The job list. Only this component renders for each frame in which any listed job changes. */
export function JobListPane({
  list,
  shown,
  openId,
  filter,
  onFilter,
  onMore,
}: Props): ReactElement {
  const { Start } = useSite();
  const listStore = useJobListStore();
  const rows = useRef<HTMLUListElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const states = useJobs(useMemo(() => shown.map(({ jobId }) => jobId), [shown]));
  const counts = useMemo(() => countByGroup(states), [states]);
  useRetryRefused(states);
  useListKeys(rows);

  const onRemove = useCallback(
    async (jobId: string): Promise<void> => {
      const next = adjacentLink(rows.current, jobId); // before the row is removed
      await listStore.remove(jobId);
      announce("Removed from the list");
      (next?.isConnected ? next : heading.current)?.focus();
      const open = parseRoute(hash.getSnapshot());
      if (open.page === "job" && open.jobId === jobId) {
        window.location.hash = "#/";
      }
    },
    [listStore],
  );
  const onKeyDown = (event: KeyboardEvent): void => {
    const direction = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : null;
    if (direction !== null && moveFocus(rows.current, direction) !== null) {
      event.preventDefault();
    }
  };

  const visible = shown.flatMap((job, index) => {
    const state = states[index];
    return state && (filter === "all" || filterGroup(state) === filter) ? [{ job, state }] : [];
  });
  const rest = list.jobs.length - shown.length;
  return (
    <nav className="pane" aria-label="Jobs">
      <div className="pane-top">
        <h2 ref={heading} tabIndex={-1}>
          Jobs
        </h2>
        {Start === undefined ? null : (
          <a
            className="button primary"
            href="#/start"
            aria-current={openId === null ? "page" : undefined}
          >
            <Icon name="plus" />
            Start a job
          </a>
        )}
      </div>
      <JobFilter
        counts={counts}
        total={list.jobs.length}
        counted={shown.length}
        chosen={filter}
        onChoose={onFilter}
      />
      {list.problem === null ? null : (
        <div className="pane-problem" role="alert">
          <p>The job list cannot be loaded. {list.problem}</p>
          <button type="button" className="button" onClick={() => void listStore.refresh()}>
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
        <EmptyList list={list} counted={shown.length} filter={filter} />
      )}
      {rest > 0 ? (
        <button type="button" className="button more" onClick={onMore}>
          Show {pluralize(Math.min(rest, 50), "older job")}
        </button>
      ) : null}
      <FollowForm />
      <ShortcutHints />
    </nav>
  );
}

function EmptyList({
  list,
  counted,
  filter,
}: {
  readonly list: JobList;
  readonly counted: number;
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
      <strong>No jobs yet.</strong> Jobs that you start or follow by their id appear here.
    </div>
  ) : (
    <div className="empty">
      No {filter} jobs
      {counted < list.jobs.length ? ` among the ${pluralize(counted, "latest job")}` : null}.
    </div>
  );
}

/** Retry refused jobs when the user returns to the page. */
function useRetryRefused(states: readonly JobState[]): void {
  const client = useJobClient();
  const hasRefused = states.some(({ joined }) => joined === "refused");
  useEffect(() => {
    const reconnect = (): void => client.reconnect();
    if (hasRefused) {
      window.addEventListener("focus", reconnect);
    }
    return () => window.removeEventListener("focus", reconnect);
  }, [client, hasRefused]);
}

function countByGroup(states: readonly JobState[]): Counts {
  const counts: Record<Exclude<Filter, "all"> | FilterGroup, number> = {
    active: 0,
    failed: 0,
    done: 0,
    none: 0,
  };
  for (const state of states) {
    counts[filterGroup(state)] += 1;
  }
  return counts;
}

/** Return the link that gets the focus when a job's row is removed. */
function adjacentLink(list: HTMLUListElement | null, jobId: string): HTMLElement | null {
  const all = [...(list?.querySelectorAll<HTMLElement>("[data-job-id]") ?? [])];
  const at = all.findIndex((row) => row.getAttribute("data-job-id") === jobId);
  const next = at === -1 ? undefined : (all[at + 1] ?? all[at - 1]);
  return next?.querySelector("a") ?? null;
}
