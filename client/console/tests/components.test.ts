// @vitest-environment happy-dom
/** Components in a simulated browser: what they show, and where the focus goes. */

import type { Connection, JobClient, JobState } from "@jobcast/client";
import { JobcastProvider } from "@jobcast/client/react";
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { createElement, type ReactElement } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { App } from "../src/App";
import { Header } from "../src/Header";
import type { Filter } from "../src/jobs/JobFilter";
import { JobListPane } from "../src/jobs/JobListPane";
import type { JobListStore, ListedJob } from "../src/jobs/jobListStore";
import { JobsContext } from "../src/jobs/jobsContext";
import type { ProgressHistory } from "../src/jobs/progressHistory";
import { setShortcutsEnabled } from "../src/lib/shortcuts";
import { ServerAuthentication } from "../src/server/serverAuthentication";
import { authentication } from "../src/server/serverSession";
import { serverSite } from "../src/server/serverSite";
import { AccessContext, type Site, SiteContext } from "../src/site";
import { job } from "./factories";

beforeEach(() => vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true));

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  window.location.hash = "";
});

const status = { state: "connected", label: "Live", problem: null } as const;

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

describe("the job list", () => {
  const listed = (jobId: string): ListedJob => ({
    ...{ jobId, task: null, title: jobId, sentAt: null },
    sent: true,
  });

  function pane(
    jobIds: readonly string[],
    remove: (jobId: string) => Promise<void>,
    { counted = jobIds.length, filter = "all" as Filter } = {},
  ): ReactElement {
    const jobs = jobIds.map(listed);
    const shown = jobs.slice(0, counted);
    const listStore = { remove } as unknown as JobListStore;
    return createElement(
      SiteContext,
      { value: serverSite },
      createElement(
        JobcastProvider,
        { client },
        createElement(
          JobsContext,
          { value: { listStore, progressHistory: {} as ProgressHistory } },
          createElement(JobListPane, {
            list: { state: "ready", jobs, problem: null },
            shown,
            openId: null,
            filter,
            onFilter: () => {},
            onMore: () => {},
          }),
        ),
      ),
    );
  }

  const states = new Map<string, JobState>();
  const client = {
    job: (jobId: string) => ({
      subscribe: () => () => {},
      getSnapshot: () => {
        const state = states.get(jobId) ?? job({ jobId });
        states.set(jobId, state);
        return state;
      },
    }),
    connection: { subscribe: () => () => {}, getSnapshot: () => ({}) as Connection },
  } as unknown as JobClient;

  it("moves the focus from a removed row to the next one, and keeps the open job's page", async () => {
    window.location.hash = "#/jobs/xb";
    const view = render(pane(["a", "b", "c"], remove));
    async function remove(jobId: string): Promise<void> {
      view.rerender(
        pane(
          ["a", "b", "c"].filter((one) => one !== jobId),
          remove,
        ),
      );
    }
    const button = screen.getByRole("button", { name: /^Remove b / });
    await act(async () => {
      button.focus();
      fireEvent.click(button);
    });
    expect(screen.queryByRole("button", { name: /^Remove b / })).toBeNull();
    expect(document.activeElement?.textContent).toContain("c");
    expect(document.activeElement?.tagName).toBe("A");
    expect(window.location.hash).toBe("#/jobs/xb");
  });

  const keep = async (): Promise<void> => {};
  const counts = (): (string | null)[] =>
    [...document.querySelectorAll("[data-filter]")].map((button) => button.textContent);

  it("counts all jobs if all are followed", () => {
    render(pane(["a", "b", "c"], keep));
    expect(counts()).toEqual(["All 3", "Active 3", "Failed 0", "Done 0"]);
  });

  it("marks its counts if only the latest jobs are followed", () => {
    render(pane(["a", "b", "c"], keep, { counted: 2, filter: "failed" }));
    expect(counts()).toEqual(["All 3", "Active 2+", "Failed 0+", "Done 0+"]);
    const failed = document.querySelector('[data-filter="failed"]');
    expect(failed?.getAttribute("title")).toBe("Of the 2 latest jobs");
    expect(document.querySelector(".empty")?.textContent).toBe(
      "No failed jobs among the 2 latest jobs.",
    );
    expect(screen.getByRole("button", { name: "Show 1 older job" })).toBeDefined();
  });

  it("reacts to shortcut keys outside of text fields, unless they are turned off", () => {
    render(pane(["a", "b"], async () => {}));
    const keys = screen.getByRole<HTMLInputElement>("checkbox", { name: "Shortcut keys" });
    const field = screen.getByRole("textbox");
    const press = (from: Element, how = {}): boolean =>
      !fireEvent.keyDown(from, { key: "j", ...how });
    expect(["ctrlKey", "metaKey", "altKey"].map((held) => press(keys, { [held]: true }))).toEqual([
      false,
      false,
      false,
    ]);
    expect([press(field), press(document.body)]).toEqual([false, true]);
    expect(document.activeElement?.textContent).toContain("a");
    act(() => keys.click());
    expect([keys.checked, press(document.body)]).toEqual([false, false]);
    expect(document.activeElement?.textContent).toContain("a");
    act(() => setShortcutsEnabled(true));
    expect([keys.checked, press(keys)]).toEqual([true, true]);
    expect(document.activeElement?.textContent).toContain("b");
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
    render(pane(["a", "b"], async () => {}));
    const input = document.createElement("input");
    input.type = type;
    document.body.append(input);
    expect(fireEvent.keyDown(input, { key: "j" })).toBe(!reacts);
    input.remove();
  });
});
