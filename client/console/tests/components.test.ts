// @vitest-environment happy-dom
/** Components in a simulated browser: what they show, and where the focus goes. */

import type { Connection, JobClient, JobSummary } from "@jobcast/client";
import { JobcastProvider } from "@jobcast/client/react";
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { createElement, type ReactElement } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { App } from "../src/App";
import { ConnectionBanner } from "../src/connection/ConnectionBanner";
import { connectionText } from "../src/connection/connectionText";
import { StartPanel } from "../src/demo/StartPanel";
import { Header } from "../src/Header";
import { setShortcutsEnabled } from "../src/lib/shortcuts";
import { FeedContext, type ShownFeed } from "../src/list/feed";
import { ListPane } from "../src/list/ListPane";
import { ServerAuthentication } from "../src/server/serverAuthentication";
import { authentication } from "../src/server/serverSession";
import { serverSite } from "../src/server/serverSite";
import { AccessContext, type Site, SiteContext } from "../src/site";
import { summary } from "./factories";

beforeEach(() => vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true));

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  window.location.hash = "";
});

const status = { state: "connected", label: "Live", attempts: 0, problem: null } as const;

const CONNECTED: Connection = {
  state: "connected",
  code: null,
  message: null,
  attempts: 0,
  since: 0,
  server: null,
  features: null,
};

const access = { user: "ada", url: "http://server/", getToken: null, signOut: null };

/** Serve the configuration of a server, and sessions of users who sent the token `good`. */
function serve(methods: readonly string[]): string[] {
  const requests: string[] = [];
  vi.stubGlobal("fetch", async (path: string, { headers = {} }: { headers?: HeadersInit }) => {
    requests.push(path);
    if (path === "config.json") {
      return Response.json({ server: "..", sign_in: methods });
    }
    const token = new Headers(headers).get("Authorization");
    return token === "Bearer good"
      ? Response.json({ user: "ada" })
      : Response.json({ code: "token_expired", detail: "the token has expired" }, { status: 401 });
  });
  return requests;
}

function appOf(site: Site): ReactElement {
  return createElement(SiteContext, { value: site }, createElement(App));
}

describe("the sign-in of a server", () => {
  afterEach(() => authentication.setToken(null));

  it("leads to the application's sign-in, and retries", async () => {
    const requests = serve(["session"]);
    await serverSite.session.load();
    render(appOf(serverSite));
    expect(screen.getByRole("heading").textContent).toBe("You are not signed in");
    expect(screen.queryByRole("form")).toBeNull();
    await act(async () => fireEvent.click(screen.getByRole("button", { name: "Try again" })));
    expect(requests).toEqual(["config.json", "session", "session"]);
    act(() => serverSite.session.begin(access));
    act(() => serverSite.session.expire());
    expect(screen.getByRole("heading").textContent).toBe("Your session has ended");
    expect(document.activeElement).toBe(screen.getByRole("heading"));
  });

  it("asks for a token where the server accepts tokens, and reports a refused one", async () => {
    serve(["token"]);
    const current = new ServerAuthentication();
    expect(await current.load()).toBeNull();
    expect(current.methods).toEqual(["token"]);
    current.setToken("bad");
    await expect(current.load()).rejects.toThrow("the token has expired");
    expect(await current.load()).toBeNull(); // the refused token is forgotten
    expect(sessionStorage.length).toBe(0);
  });

  it("keeps a token in the session storage until the user signs out", async () => {
    serve(["token", "session"]);
    const first = new ServerAuthentication();
    first.setToken("good");
    const found = await new ServerAuthentication().load();
    expect(found?.user).toBe("ada");
    expect(await found?.getToken?.()).toBe("good");
    expect(localStorage.length).toBe(0);
    await found?.signOut?.();
    expect(sessionStorage.length).toBe(0);
  });

  it("connects to the server above the page, with cookies if there is no token", async () => {
    vi.stubGlobal("fetch", async (path: string) =>
      Response.json(path === "session" ? { user: "ada" } : { server: "../..", sign_in: [] }),
    );
    window.history.replaceState(null, "", "/proxy/ops/jobs/");
    const found = await new ServerAuthentication().load();
    window.history.replaceState(null, "", "/");
    expect(new URL(found?.url ?? "").pathname).toBe("/proxy/");
    expect([found?.getToken, found?.signOut]).toEqual([null, null]);
  });
});

describe("the header", () => {
  const header = (site: Partial<Site>, signOut: (() => Promise<void>) | null) =>
    createElement(
      SiteContext,
      { value: { ...serverSite, ...site } },
      createElement(
        AccessContext,
        { value: { ...access, signOut } },
        createElement(Header, { status }),
      ),
    );

  it("has a label and a sign-out only where the site has them", async () => {
    const { rerender } = render(header({}, null));
    expect([screen.queryByText("Demonstration"), screen.queryByText("Sign out")]).toEqual([
      null,
      null,
    ]);
    const signOut = vi.fn(async () => undefined);
    rerender(header({ label: "Demonstration" }, signOut));
    screen.getByText("Demonstration");
    await act(async () => fireEvent.click(screen.getByRole("button", { name: "Sign out" })));
    expect(signOut).toHaveBeenCalledOnce();
    expect(serverSite.session.state.getSnapshot().state).toBe("signed_out");
  });
});

describe("the banner of a refused connection", () => {
  const banner = (code: string): ReactElement => {
    const connection = { ...CONNECTED, state: "refused", code, message: "no" } as const;
    return createElement(
      JobcastProvider,
      { client: { reconnect: () => {} } as unknown as JobClient },
      createElement(
        SiteContext,
        { value: serverSite },
        createElement(
          AccessContext,
          { value: { ...access, signOut: async () => undefined } },
          createElement(ConnectionBanner, {
            connection,
            status: connectionText(connection, true),
          }),
        ),
      ),
    );
  };

  it("offers to sign in again after a refusal of the user", () => {
    render(banner("token_expired"));
    screen.getByRole("button", { name: "Sign in again" });
  });

  it("names the setting after a refusal of the page, and no sign-in", () => {
    render(banner("forbidden"));
    screen.getByText(/JOBCAST_CORS_ORIGINS/);
    screen.getByRole("button", { name: "Try again" });
    expect(screen.queryByRole("button", { name: "Sign in again" })).toBeNull();
  });
});

describe("the list of jobs", () => {
  const feed = (jobs: readonly JobSummary[], values: Partial<ShownFeed> = {}): ShownFeed => ({
    feed: "all",
    jobs,
    status: "live",
    total: jobs.length,
    hasMore: false,
    isLoadingMore: false,
    error: null,
    loadMore: () => {},
    mayListAll: true,
    isConnected: true,
    ...values,
  });
  const pane = (shown: ShownFeed, site: Partial<Site> = {}): ReactElement =>
    createElement(
      SiteContext,
      { value: { ...serverSite, ...site } },
      createElement(FeedContext, { value: shown }, createElement(ListPane, { openId: null })),
    );
  const jobs = ["a", "b", "c"].map((jobId) => summary({ jobId, title: `Job ${jobId.repeat(2)}` }));
  const names = (): (string | undefined)[] =>
    [...document.querySelectorAll<HTMLElement>("li")].map((row) => row.dataset.jobId);
  const counts = (): (string | null)[] =>
    [...document.querySelectorAll("[data-group]")].map((button) => button.textContent);

  beforeEach(() => {
    vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(600);
    vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(74);
  });

  it("has a row for each job, with its position in the list", () => {
    render(pane(feed(jobs)));
    expect(names()).toEqual(["a", "b", "c"]);
    const row = screen.getByRole("link", { name: /^Job b/ }).closest("li");
    expect(["aria-posinset", "aria-setsize"].map((name) => row?.getAttribute(name))).toEqual([
      "2",
      "3",
    ]);
    expect(counts()).toEqual(["All 3", "Stuck 0", "Queued 0", "Running 3", "Failed 0", "Done 0"]);
    expect(document.title).toBe("3 running · jobcast");
  });

  it("draws few of ten thousand rows", () => {
    const many = Array.from({ length: 10_000 }, (_, index) => summary({ jobId: `job-${index}` }));
    render(pane(feed(many)));
    expect(names().length).toBeGreaterThan(5);
    expect(names().length).toBeLessThan(60);
    screen.getByText("10,000", { selector: '[data-group="all"] *' });
  });

  it("keeps its filters in the address", () => {
    const shown = feed([...jobs, summary({ jobId: "d", status: "error", owner: "ada" })]);
    render(pane(shown));
    fireEvent.click(screen.getByRole("button", { name: /^Failed/ }));
    expect([names(), window.location.hash]).toEqual([["d"], "#/?show=failed"]);
    fireEvent.click(screen.getByRole("button", { name: /^All 4/ }));
    fireEvent.change(screen.getByRole("searchbox"), { target: { value: "job bb" } });
    expect([names(), window.location.hash]).toEqual([["b"], "#/?q=job+bb"]);
    fireEvent.keyDown(screen.getByRole("searchbox"), { key: "Escape" });
    fireEvent.click(screen.getByRole("button", { name: "Filters" }));
    fireEvent.change(screen.getByLabelText("Owner"), { target: { value: "ada" } });
    expect([names(), window.location.hash]).toEqual([["d"], "#/?owner=ada"]);
    fireEvent.click(screen.getByRole("button", { name: "Clear the filters" }));
    expect([names().length, window.location.hash]).toEqual([4, "#/"]);
  });

  it("clears the search and the filters of a list that they leave empty", () => {
    window.location.hash = "#/?feed=owner%3Aada&show=failed&task=other&q=nothing";
    render(pane(feed(jobs, { feed: "owner:ada" })));
    screen.getByText("No job matches.");
    fireEvent.click(screen.getByRole("button", { name: "Clear the search and the filters" }));
    expect([names().length, window.location.hash]).toEqual([3, "#/?feed=owner%3Aada"]);
  });

  it("shows cancelled jobs in a group of their own, and not as failures", () => {
    const cancelled = ["revoked", "cancelled"].map((reason) =>
      summary({ jobId: reason, status: "cancelled", reason, endedAt: "2026-11-24T10:00:00.000Z" }),
    );
    const later = summary({ jobId: "later", status: "cancelled", endedAt: "2026-11-24T10:00:00Z" });
    const { rerender } = render(pane(feed([...jobs, summary({ jobId: "d", status: "error" })])));
    expect(screen.queryByRole("button", { name: /^Cancelled/ })).toBeNull();
    rerender(pane(feed([...jobs, ...cancelled, later])));
    expect(counts().slice(-3)).toEqual(["Failed 0", "Cancelled 3", "Done 0"]);
    const badges = [...document.querySelectorAll<HTMLElement>("li .badge")].slice(-3);
    expect(badges.map(({ dataset, textContent }) => [dataset.tone, textContent])).toEqual([
      ["quiet", "Revoked"],
      ["quiet", "Cancelled"],
      ["quiet", "Cancelled"],
    ]);
    fireEvent.click(screen.getByRole("button", { name: /^Cancelled/ }));
    expect([names().length, window.location.hash]).toEqual([3, "#/?show=cancelled"]);
  });

  it("shows a job that is being cancelled as one that runs", () => {
    render(pane(feed([summary({ jobId: "a", status: "cancelling" })])));
    expect(counts()[3]).toBe("Running 1");
    expect(document.querySelector<HTMLElement>("li .badge")?.dataset.tone).toBe("active");
  });

  it("switches between all jobs and the user's own, for a user who may list all", () => {
    const { rerender } = render(pane(feed(jobs)));
    fireEvent.click(screen.getByRole("button", { name: "Mine" }));
    expect(window.location.hash).toBe("#/?feed=mine");
    rerender(pane(feed(jobs, { feed: "mine", mayListAll: false })));
    expect(screen.queryByRole("group", { name: "Whose jobs" })).toBeNull();
  });

  it("explains a refused feed, and opens a job by its id", () => {
    const error = { code: "feeds_unavailable", message: "no feeds" };
    window.location.hash = "#/?q=42";
    const { rerender } = render(pane(feed([], { status: "refused", error })));
    expect(screen.getByRole("alert").textContent).toContain("This server keeps no lists of jobs.");
    expect(screen.getByRole("link", { name: "Open the job 42" }).getAttribute("href")).toBe(
      "#/jobs/42",
    );
    const forbidden = { code: "feed_not_allowed", message: "no" };
    rerender(pane(feed([], { status: "refused", error: forbidden })));
    fireEvent.click(screen.getByRole("button", { name: "Show my jobs" }));
    expect(window.location.hash).toBe("#/?feed=mine&q=42");
  });

  it("tells that the server does not accept the page", () => {
    const error = { code: "forbidden", message: "the server refuses this page (403)" };
    render(pane(feed([], { error, status: "refused" })));
    expect(screen.getByRole("alert").textContent).toBe(
      "There is no list. The server does not accept this page.",
    );
  });

  it("tells why the list has not arrived", () => {
    const waiting = (values: Partial<ShownFeed>): string | null => {
      const { unmount } = render(pane(feed([], { status: "connecting", total: null, ...values })));
      const text = screen.getByRole("status").textContent;
      unmount();
      return text;
    };
    const error = { code: "unavailable", message: "the store does not answer" };
    expect(waiting({ isConnected: false })).toBe("Loading the jobs…");
    expect(waiting({})).toBe("Loading the jobs…");
    const lost = "The page is not connected to the server. Trying again…";
    expect(waiting({ isConnected: false, error })).toBe(lost);
    expect(waiting({ isConnected: false, error, status: "reconnecting" })).toBe(lost);
    expect(waiting({ error })).toBe("The server cannot list the jobs at the moment. Trying again…");
  });

  it("loads older jobs on request, and marks its counts as incomplete", () => {
    const loadMore = vi.fn();
    render(pane(feed(jobs, { hasMore: true, loadMore })));
    expect(counts()).toEqual([
      "All 3+",
      "Stuck 0+",
      "Queued 0+",
      "Running 3+",
      "Failed 0+",
      "Done 0+",
    ]);
    fireEvent.click(screen.getByRole("button", { name: "Load older jobs" }));
    expect(loadMore).toHaveBeenCalledOnce();
  });

  it.each([
    ["#/?q=nothing", "No job matches yet: older jobs are not loaded."],
    ["#/?show=failed", "No job in this state matches yet: older jobs are not loaded."],
  ])("a filter of %s says that older jobs are not loaded", (hash, text) => {
    window.location.hash = hash;
    render(pane(feed(jobs, { hasMore: true })));
    screen.getByText(text);
    expect(counts()[0]).toMatch(/^All [03]\+$/);
    screen.getByRole("button", { name: "Load older jobs" });
  });

  it("offers to start jobs only where the site can", () => {
    const { rerender } = render(pane(feed(jobs)));
    expect(screen.queryByRole("link", { name: "Start a job" })).toBeNull();
    rerender(pane(feed(jobs), { Start: StartPanel }));
    screen.getByRole("link", { name: "Start a job" });
  });

  it("keeps the focus in a row that moves", () => {
    const { rerender } = render(pane(feed(jobs)));
    act(() => screen.getByRole("link", { name: /^Job a/ }).focus());
    const more = Array.from({ length: 500 }, (_, index) => summary({ jobId: `job-${index}` }));
    rerender(pane(feed([...more, ...jobs])));
    expect(names()).toContain("a");
    expect(document.activeElement?.textContent).toContain("Job a");
  });

  it("reacts to shortcut keys outside of text fields, unless they are turned off", () => {
    render(pane(feed(jobs)));
    const keys = screen.getByRole<HTMLInputElement>("checkbox", { name: "Shortcut keys" });
    const field = screen.getByRole("searchbox");
    const press = (from: Element, how = {}): boolean =>
      !fireEvent.keyDown(from, { key: "j", ...how });
    expect(["ctrlKey", "metaKey", "altKey"].map((held) => press(keys, { [held]: true }))).toEqual([
      false,
      false,
      false,
    ]);
    expect([press(field), press(document.body)]).toEqual([false, true]);
    expect(document.activeElement?.textContent).toContain("Job a");
    act(() => keys.click());
    expect([keys.checked, press(document.body)]).toEqual([false, false]);
    expect(document.activeElement?.textContent).toContain("Job a");
    act(() => setShortcutsEnabled(true));
    expect([keys.checked, press(keys)]).toEqual([true, true]);
    expect(document.activeElement?.textContent).toContain("Job b");
    fireEvent.keyDown(document.activeElement ?? document.body, { key: "End" });
    expect(document.activeElement?.textContent).toContain("Job c");
  });

  it.each([
    ["file", true],
    ["radio", true],
    ["range", true],
    ["text", false],
    ["search", false],
    ["password", false],
    ["date", false],
  ])("reacts to shortcut keys in an input of type %s: %s", (type, reacts) => {
    render(pane(feed(jobs)));
    const input = document.createElement("input");
    input.type = type;
    document.body.append(input);
    expect(fireEvent.keyDown(input, { key: "j" })).toBe(!reacts);
    input.remove();
  });
});
