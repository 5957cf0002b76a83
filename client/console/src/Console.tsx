import type { Connection } from "@jobcast/client";
import { useConnection, useJobClient } from "@jobcast/client/react";
import { type ReactElement, useEffect, useMemo, useRef, useState } from "react";
import { ConnectionBanner } from "./connection/ConnectionBanner";
import { connectionText, useOnline } from "./connection/connectionText";
import { Header } from "./Header";
import { JobPage } from "./job/JobPage";
import type { Filter } from "./jobs/JobFilter";
import { JobListPane } from "./jobs/JobListPane";
import { JobListStore } from "./jobs/jobListStore";
import { JobsContext } from "./jobs/jobsContext";
import { ProgressHistory } from "./jobs/progressHistory";
import { useFocusRestore } from "./jobs/useFocusRestore";
import { announce } from "./lib/liveRegion";
import { hash, parseRoute } from "./lib/route";
import { useNarrow } from "./lib/useNarrow";
import { useStore } from "./lib/useStore";
import { useAccess, useSite } from "./site";
import { LiveRegion } from "./ui/LiveRegion";

const PAGE_SIZE = 50; // jobs to follow and show at first, and to add with each "show more"

export function Console(): ReactElement {
  const { session, started, Start } = useSite();
  const { user } = useAccess();
  const client = useJobClient();
  const listStore = useMemo(
    () => new JobListStore(user, session, started),
    [user, session, started],
  );
  const progressHistory = useMemo(() => new ProgressHistory(client), [client]);
  const list = useStore(listStore.list);
  const route = parseRoute(useStore(hash));
  const [limit, setLimit] = useState(PAGE_SIZE);
  const [filter, setFilter] = useState<Filter>("all");
  const connection = useConnection();
  const online = useOnline();
  const status = connectionText(connection, online);

  const shown = useMemo(() => list.jobs.slice(0, limit), [list.jobs, limit]);
  const ids = useMemo(() => shown.map(({ jobId }) => jobId), [shown]);
  const openId = route.page === "job" ? route.jobId : null;

  useEffect(() => listStore.start(), [listStore]);
  useEffect(() => {
    progressHistory.follow(openId === null || ids.includes(openId) ? ids : [...ids, openId]);
  }, [progressHistory, ids, openId]);
  useEffect(() => () => progressHistory.follow([]), [progressHistory]);
  useFocusRestore(route);
  useConnectionAnnouncements(status.state);
  useSessionCheck(connection);

  const context = useMemo(() => ({ listStore, progressHistory }), [listStore, progressHistory]);
  const isListOnly = useNarrow() && route.page === "home" && list.jobs.length > 0;
  const pane = (
    <JobListPane
      list={list}
      shown={shown}
      openId={openId}
      filter={filter}
      onFilter={setFilter}
      onMore={() => setLimit((now) => now + PAGE_SIZE)}
    />
  );
  return (
    <JobsContext value={context}>
      <div
        className="console"
        data-connection={status.state}
        data-page={route.page}
        data-empty={list.jobs.length === 0 || undefined}
      >
        <button type="button" className="button primary skip" onClick={skipToMain}>
          Skip to main content
        </button>
        <Header status={status} />
        <ConnectionBanner key={status.state} status={status} connection={connection} />
        {isListOnly ? (
          <main id="main" tabIndex={-1}>
            <h1 className="visually-hidden">Your jobs</h1>
            {pane}
          </main>
        ) : (
          pane
        )}
        {isListOnly ? null : (
          <main id="main" className="main" tabIndex={-1}>
            {openId === null ? (
              Start && <Start page={route.page} />
            ) : (
              <JobPage
                key={openId}
                jobId={openId}
                listed={list.jobs.find((job) => job.jobId === openId)}
              />
            )}
          </main>
        )}
        <LiveRegion />
      </div>
    </JobsContext>
  );
}

/** Move the focus with script, because the hash of a link would be a route. */
function skipToMain(): void {
  document.getElementById("main")?.focus();
}

/** When the server refuses the user, find out whether the session has ended. */
function useSessionCheck({ state, code }: Connection): void {
  const { session } = useSite();
  const isUnknown = state === "refused" && code?.startsWith("token_");
  useEffect(() => {
    if (isUnknown) {
      void session.load();
    }
  }, [session, isUnknown]);
}

function useConnectionAnnouncements(state: string): void {
  const before = useRef(state);
  useEffect(() => {
    const previous = before.current;
    before.current = state;
    if (state === previous) {
      return;
    }
    if (state === "connected" && (previous === "reconnecting" || previous === "offline")) {
      announce("Connected again");
    } else if (state === "reconnecting" && previous === "connected") {
      announce("Connection lost, reconnecting");
    } else if (state === "offline") {
      announce("You are offline");
    } else if (state === "refused") {
      announce("The connection was refused");
    }
  }, [state]);
}
