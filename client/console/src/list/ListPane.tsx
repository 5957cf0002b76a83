import { isJobId } from "@jobcast/client";
import { type ReactElement, useEffect, useMemo, useRef } from "react";
import { pluralize } from "../lib/formatNumber";
import { announce } from "../lib/liveRegion";
import { jobHash, startHash } from "../lib/route";
import { useNow } from "../lib/useNow";
import { changeView, useRoute } from "../lib/useRoute";
import { DEFAULT_VIEW, type View } from "../lib/view";
import { useSite } from "../site";
import { Icon } from "../ui/Icon";
import { FilterPanel } from "./FilterPanel";
import { facetsOf } from "./facets";
import { type ShownFeed, useFeed } from "./feed";
import { GroupFilter } from "./GroupFilter";
import { JobList } from "./JobList";
import { ListSearch } from "./ListSearch";
import { ScopeSwitch } from "./ScopeSwitch";
import { ShortcutHints } from "./ShortcutHints";
import { type Selection, selectJobs } from "./selection";
import { useListTitle } from "./useListTitle";

const TICK = 5000; // ms after which jobs may count as stuck

/** The list of jobs. Only this component renders for each frame in which a job changes. */
export function ListPane({ openId }: { readonly openId: string | null }): ReactElement {
  const { Start } = useSite();
  const feed = useFeed();
  const { page, view } = useRoute();
  const now = Math.floor(useNow() / TICK) * TICK;
  const selection = useMemo(() => selectJobs(feed.jobs, view, now), [feed.jobs, view, now]);
  const facets = useMemo(() => facetsOf(feed.jobs), [feed.jobs]);
  useListTitle(selection.counts, page === "home");
  useStuckAnnouncements(selection.counts.stuck);
  return (
    <nav className="pane" aria-label="Jobs">
      <div className="pane-top">
        <h2 tabIndex={-1}>Jobs</h2>
        <ScopeSwitch feed={feed.feed} mayListAll={feed.mayListAll} />
        {Start === undefined ? null : (
          <a
            className="button primary"
            href={startHash(view)}
            aria-current={page === "start" ? "page" : undefined}
          >
            <Icon name="plus" />
            Start a job
          </a>
        )}
      </div>
      <div className="pane-tools">
        <ListSearch text={view.search} isShown={page === "home"} jobs={selection.jobs} />
        <FilterPanel view={view} facets={facets} isAll={feed.feed !== "mine"} />
        <GroupFilter counts={selection.counts} chosen={view.group} isPart={feed.hasMore} />
      </div>
      {selection.jobs.length > 0 ? (
        <JobList
          jobs={selection.jobs}
          openId={openId}
          view={view}
          isAll={feed.feed !== "mine"}
          isLoading={feed.status !== "live"}
        />
      ) : (
        <EmptyList feed={feed} view={view} counts={selection.counts} />
      )}
      {feed.hasMore ? (
        <button
          type="button"
          className="button more"
          aria-disabled={feed.isLoadingMore}
          onClick={feed.loadMore}
        >
          {feed.isLoadingMore ? "Loading…" : "Load older jobs"}
        </button>
      ) : null}
      <ShortcutHints />
    </nav>
  );
}

interface EmptyProps {
  readonly feed: ShownFeed;
  readonly view: View;
  readonly counts: Selection["counts"];
}

/** The text in place of an empty list. */
function EmptyList({ feed, view, counts }: EmptyProps): ReactElement {
  const jobId = view.search.trim();
  const open = isJobId(jobId) ? (
    <p>
      <a className="button" href={jobHash(jobId)}>
        Open the job {jobId}
      </a>
    </p>
  ) : null;
  if (feed.status === "refused") {
    return (
      <div className="empty" role="alert">
        <p>
          <strong>There is no list.</strong> {refusalText(feed)}
        </p>
        {feed.error?.code === "feed_not_allowed" ? (
          <p>
            <button type="button" className="button" onClick={() => changeView({ feed: "mine" })}>
              Show my jobs
            </button>
          </p>
        ) : null}
        {open}
      </div>
    );
  }
  if (feed.status !== "live") {
    return <Waiting feed={feed} />;
  }
  if (feed.jobs.length === 0) {
    return (
      <div className="empty">
        <p>
          <strong>No jobs yet.</strong> Jobs appear here when they are sent.
        </p>
        {open}
      </div>
    );
  }
  const matches = counts.all === 0 ? "matches" : "in this state matches";
  return (
    <div className="empty">
      <p>
        {feed.hasMore ? `No job ${matches} yet: older jobs are not loaded.` : `No job ${matches}.`}
      </p>
      {open}
      <p>
        <button
          type="button"
          className="button"
          onClick={() => changeView({ ...DEFAULT_VIEW, feed: view.feed })}
        >
          Clear the search and the filters
        </button>
      </p>
    </div>
  );
}

/** The text until the list has arrived. */
function Waiting({ feed }: { readonly feed: ShownFeed }): ReactElement {
  const problem = waitingProblem(feed);
  return (
    <div className="empty" role="status" aria-busy="true">
      {problem === null ? (
        "Loading the jobs…"
      ) : (
        <p>
          <strong>{problem}</strong> Trying again…
        </p>
      )}
    </div>
  );
}

/** Return why the list has not arrived; null if it is on its way. */
function waitingProblem({ error, isConnected }: ShownFeed): string | null {
  if (error === null) {
    return null;
  }
  return isConnected
    ? "The server cannot list the jobs at the moment."
    : "The page is not connected to the server.";
}

function refusalText({ error }: ShownFeed): string {
  switch (error?.code) {
    case "feed_not_allowed":
      return "You may not list these jobs.";
    case "feeds_unavailable":
      return "This server keeps no lists of jobs. Search for a job id to open its job.";
    case "forbidden":
      return "The server does not accept this page.";
    default:
      return error?.message ?? "";
  }
}

/** Tell screen readers when more jobs are stuck. */
function useStuckAnnouncements(stuck: number): void {
  const before = useRef(stuck);
  useEffect(() => {
    if (stuck > before.current) {
      announce(`${pluralize(stuck, "job needs", "jobs need")} attention`);
    }
    before.current = stuck;
  }, [stuck]);
}
