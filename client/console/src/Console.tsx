import type { Connection } from "@jobcast/client";
import { useConnection, useJobClient } from "@jobcast/client/react";
import { type ReactElement, type ReactNode, useEffect, useMemo, useRef } from "react";
import { CancelProvider } from "./cancel/CancelProvider";
import { ConnectionBanner } from "./connection/ConnectionBanner";
import { connectionText, useOnline } from "./connection/connectionText";
import { Header } from "./Header";
import { JobPage } from "./job/JobPage";
import { ProgressHistory, ProgressHistoryContext } from "./job/progressHistory";
import { announce } from "./lib/liveRegion";
import type { Route } from "./lib/route";
import { useRoute } from "./lib/useRoute";
import { FeedProvider } from "./list/FeedProvider";
import { useFeed } from "./list/feed";
import { ListPane } from "./list/ListPane";
import { useSite } from "./site";
import { LiveRegion } from "./ui/LiveRegion";

export function Console(): ReactElement {
  const client = useJobClient();
  const progressHistory = useMemo(() => new ProgressHistory(client), [client]);
  const route = useRoute();
  const connection = useConnection();
  const online = useOnline();
  const status = connectionText(connection, online);
  const openId = route.page === "job" ? route.jobId : null;

  useEffect(() => {
    progressHistory.follow(openId === null ? [] : [openId]);
  }, [progressHistory, openId]);
  useEffect(() => () => progressHistory.follow([]), [progressHistory]);
  useConnectionAnnouncements(status.state);
  useSessionCheck(connection);

  return (
    <ProgressHistoryContext value={progressHistory}>
      <FeedProvider>
        <CancelProvider>
          <Frame route={route} state={status.state}>
            <button type="button" className="button primary skip" onClick={skipToMain}>
              Skip to main content
            </button>
            <Header status={status} />
            <ConnectionBanner key={status.state} status={status} connection={connection} />
          </Frame>
        </CancelProvider>
      </FeedProvider>
    </ProgressHistoryContext>
  );
}

interface FrameProps {
  readonly route: Route;
  readonly state: string;
  /** What is above the list. */
  readonly children: ReactNode;
}

/** The list, and the job or the page that is open next to it. On a narrow screen only one of them. */
function Frame({ route, state, children }: FrameProps): ReactElement {
  const { Start } = useSite();
  const isEmpty = useHasNoJobs();
  const openId = route.page === "job" ? route.jobId : null;
  const startsJobs = Start !== undefined && (route.page === "start" || isEmpty);
  const isList = openId === null && !startsJobs;
  const page = openId !== null ? "job" : startsJobs ? "start" : "home";
  return (
    <div className="console" data-connection={state} data-page={page}>
      {children}
      {/* The list stays the same element, so that it keeps its position. */}
      <div
        className="side"
        id={isList ? "main" : undefined}
        role={isList ? "main" : undefined}
        tabIndex={isList ? -1 : undefined}
      >
        {isList ? <h1 className="visually-hidden">Jobs</h1> : null}
        <ListPane openId={openId} />
      </div>
      {isList ? null : (
        <main id="main" className="main" tabIndex={-1}>
          {openId !== null ? (
            <JobPage key={openId} jobId={openId} view={route.view} />
          ) : Start ? (
            <Start page={route.page} />
          ) : null}
        </main>
      )}
      <LiveRegion />
    </div>
  );
}

/** Return whether the list is known to be empty. */
function useHasNoJobs(): boolean {
  const { jobs, status } = useFeed();
  return status === "live" && jobs.length === 0;
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
