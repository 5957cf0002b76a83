import { useConnection, useJobClient } from "@jobcast/client/react";
import { type ReactElement, useEffect, useMemo, useRef, useState } from "react";
import { ConnectionBanner } from "./connection/ConnectionBanner";
import { connectionWords, useOnline } from "./connection/connectionWords";
import { Header } from "./Header";
import { JobPage } from "./job/JobPage";
import type { Filter } from "./jobs/JobFilter";
import { JobsPane } from "./jobs/JobsPane";
import { JobLists } from "./jobs/jobList";
import { JobsContext } from "./jobs/jobsContext";
import { ProgressBook } from "./jobs/progressBook";
import { useReturn } from "./jobs/useReturn";
import { announce } from "./lib/liveRegion";
import { hash, routeOf } from "./lib/route";
import { useNarrow } from "./lib/useNarrow";
import { useStore } from "./lib/useStore";
import { StartPanel } from "./start/StartPanel";
import { LiveRegion } from "./ui/LiveRegion";

const PAGE = 50; // jobs that are followed and shown at first, and again with each "show more"

interface Props {
  readonly user: string;
  readonly demonstration: boolean;
}

export function Console({ user, demonstration }: Props): ReactElement {
  const client = useJobClient();
  const lists = useMemo(() => new JobLists(user), [user]);
  const book = useMemo(() => new ProgressBook(client), [client]);
  const list = useStore(lists.list);
  const route = routeOf(useStore(hash));
  const [limit, setLimit] = useState(PAGE);
  const [filter, setFilter] = useState<Filter>("all");
  const connection = useConnection();
  const online = useOnline();
  const link = connectionWords(connection, online);

  const shown = useMemo(() => list.jobs.slice(0, limit), [list.jobs, limit]);
  const ids = useMemo(() => shown.map(({ jobId }) => jobId), [shown]);
  const openId = route.page === "job" ? route.jobId : null;

  useEffect(() => lists.start(), [lists]);
  useEffect(() => {
    book.keep(openId === null || ids.includes(openId) ? ids : [...ids, openId]);
  }, [book, ids, openId]);
  useEffect(() => () => book.keep([]), [book]);
  useReturn(route);
  useSpokenConnection(link.state);

  const context = useMemo(() => ({ lists, book }), [lists, book]);
  const isListOnly = useNarrow() && route.page === "home" && list.jobs.length > 0;
  const pane = (
    <JobsPane
      list={list}
      shown={shown}
      openId={openId}
      filter={filter}
      onFilter={setFilter}
      onMore={() => setLimit((now) => now + PAGE)}
    />
  );
  return (
    <JobsContext value={context}>
      <div
        className="console"
        data-connection={link.state}
        data-page={route.page}
        data-empty={list.jobs.length === 0 || undefined}
      >
        <button type="button" className="button primary skip" onClick={skipToMain}>
          Skip to the main part
        </button>
        <Header user={user} demonstration={demonstration} link={link} />
        <ConnectionBanner
          key={link.state}
          link={link}
          connection={connection}
          demonstration={demonstration}
        />
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
              <StartPanel page={route.page} />
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

/** Not by a link: a hash would be a route. */
function skipToMain(): void {
  document.getElementById("main")?.focus();
}

function useSpokenConnection(state: string): void {
  const before = useRef(state);
  useEffect(() => {
    const was = before.current;
    before.current = state;
    if (state === was) {
      return;
    }
    if (state === "connected" && (was === "reconnecting" || was === "offline")) {
      announce("Connected again");
    } else if (state === "reconnecting" && was === "connected") {
      announce("Connection lost. Reconnecting");
    } else if (state === "offline") {
      announce("You are offline");
    } else if (state === "refused") {
      announce("The connection was refused");
    }
  }, [state]);
}
