import type { Connection } from "@jobcast/client";
import { afterEach, describe, expect, it, vi } from "vitest";
import { connectionText } from "../src/connection/connectionText";
import { faviconSvg } from "../src/lib/favicon";
import {
  formatBytes,
  formatCount,
  formatPercent,
  formatRate,
  pluralize,
} from "../src/lib/formatNumber";
import { jobName, shortId } from "../src/lib/jobNames";
import { issueCount, logHighlights } from "../src/lib/logHighlights";
import { omissionText, summarizeResult } from "../src/lib/resultSummary";
import { jobHash, parseRoute } from "../src/lib/route";
import { includesText, nextHit, splitMatches } from "../src/lib/search";
import { job, line } from "./factories";

describe("numbers", () => {
  it("are formatted for people", () => {
    expect([formatCount(19_994), formatCount(2.55), formatPercent(99.97)]).toEqual([
      "19,994",
      "2.6",
      "99%",
    ]);
    expect([formatRate(2.5), formatRate(12_345.6), formatRate(208_000_000)]).toEqual([
      "2.5/s",
      "12,346/s",
      "208M/s",
    ]);
    expect([pluralize(1, "line"), pluralize(12_000, "line")]).toEqual(["1 line", "12,000 lines"]);
    expect([formatBytes(1), formatBytes(3100), formatBytes(33_554_432)]).toEqual([
      "1 byte",
      "3.1 kB",
      "33.6 MB",
    ]);
  });
});

describe("names", () => {
  it("shorten ids to their distinctive part", () => {
    expect(shortId("0b0b6a5e-9b5c-4d2c-8d55-0d6f8a1f2c3d")).toBe("0b0b6a5e");
    expect(shortId("import_csv-4ed0428f")).toBe("4ed0428f");
    expect(shortId("report-42")).toBe("report-42");
    expect(shortId("a-report-with-a-long-name")).toBe("a-report-with-a-l…");
  });

  it("come from the list, the task, or the id", () => {
    expect(jobName("x", "Import people", "tasks.a")).toBe("Import people");
    expect(jobName("x", null, "tasks.people.import_csv")).toBe("Import csv");
    expect(jobName("report-42", null, null)).toBe("Job report-42");
  });
});

describe("routes", () => {
  it("round-trip every valid id", () => {
    for (const jobId of ["a-1", "a/b:c.d@e=f+g~h", "50%"]) {
      expect(parseRoute(jobHash(jobId))).toMatchObject({ page: "job", jobId });
    }
  });

  it.each(["", "#", "#/", "#/jobs", "#/jobs/", "#/nowhere"])(
    "lead to the home page from %j",
    (hash) => expect(parseRoute(hash)).toMatchObject({ page: "home" }),
  );

  it("accept addresses that are typed by hand", () => {
    expect(parseRoute("#/jobs/a/b")).toMatchObject({ page: "job", jobId: "a/b" });
    expect(parseRoute("#/jobs/50%")).toMatchObject({ page: "job", jobId: "50%" });
    expect(parseRoute("#/start")).toMatchObject({ page: "start" });
  });
});

describe("search", () => {
  it("splits a text at its matches, ignoring case", () => {
    expect(splitMatches("Error: an error", "ERROR")).toEqual([
      { text: "Error", hit: true },
      { text: ": an ", hit: false },
      { text: "error", hit: true },
    ]);
    expect(splitMatches("abc", "")).toEqual([{ text: "abc", hit: false }]);
    expect(splitMatches("abc", "x")).toEqual([{ text: "abc", hit: false }]);
    expect(includesText("abc", "")).toBe(false);
  });

  it("keeps the text whole if lower case changes its length", () => {
    expect(
      splitMatches("İstanbul", "stan")
        .map(({ text }) => text)
        .join(""),
    ).toBe("İstanbul");
  });

  it("wraps around when it steps through the hits", () => {
    const hits = [2, 5, 9];
    expect([nextHit(hits, -1, 1), nextHit(hits, 2, 1), nextHit(hits, 9, 1)]).toEqual([2, 5, 2]);
    expect([nextHit(hits, 9, -1), nextHit(hits, 2, -1), nextHit([], 0, 1)]).toEqual([5, 9, null]);
  });
});

describe("results", () => {
  it("have a summary if they are small", () => {
    expect(summarizeResult({ imported: 19_994, rejected: 6 })).toBe("imported 19,994 · rejected 6");
    expect(summarizeResult("x".repeat(30))).toBe(`${"x".repeat(23)}…`);
    expect([
      summarizeResult(null),
      summarizeResult([1]),
      summarizeResult({}),
      summarizeResult({ a: {} }),
    ]).toEqual([null, null, null, null]);
  });

  it("that were omitted have an explanation", () => {
    const large = { omitted: "too_large", type: "list", bytes: 70_000, limit: 65_536 };
    expect(omissionText(large)).toBe(
      "The result (list) is too large to show: it has 70,000 bytes, and the limit is 65,536.",
    );
    expect(omissionText({ omitted: "unserializable", type: "socket" })).toMatch(/\(socket\).*JSON/);
    expect([omissionText({ omitted: 3 }), omissionText([])]).toEqual([null, null]);
  });
});

describe("log highlights", () => {
  it("are the last warnings and errors", () => {
    const logs = [1, 2, 3, 4, 5].map((seq) =>
      line(seq, { level: seq === 3 ? "error" : "warning" }),
    );
    const highlights = logHighlights(job({ status: "error", logs: [...logs, line(6)] }));
    expect(highlights?.title).toBe("1 error and 4 warnings, the last 3");
    expect(highlights?.lines.map(({ seq }) => seq)).toEqual([3, 4, 5]);
  });

  it("are the last lines of a failed job without warnings and errors", () => {
    expect(logHighlights(job({ status: "error", logs: [line(1)] }))?.title).toBe("Last log lines");
    expect(logHighlights(job({ status: "complete", logs: [line(1)] }))).toBeNull();
    expect(issueCount(job({ logs: [line(1, { level: "critical" })] }))).toBe("1 error");
  });
});

describe("the icon of the tab", () => {
  it("has a ring whose length is the percentage in steps", () => {
    const lengthOf = (percentage: number) =>
      /stroke-dasharray="(\d+) 100"/.exec(faviconSvg({ tone: "active", percentage }))?.[1];
    expect([0, 4, 62.5, 99.9, 100].map(lengthOf)).toEqual(["0", "0", "60", "95", "100"]);
  });

  it("has a dot for a list with stuck jobs", () => {
    expect(faviconSvg({ tone: "warn", percentage: null })).toMatch(/<circle .*#d98a0b/);
  });
});

describe("the connection text", () => {
  const connection = (values: Partial<Connection>): Connection => ({
    state: "connected",
    code: null,
    message: null,
    attempts: 0,
    since: 0,
    server: null,
    features: null,
    ...values,
  });

  afterEach(() => {
    vi.unstubAllGlobals();
  });

  it("has no problem while the connection is fine", () => {
    for (const state of ["idle", "connecting", "connected"] as const) {
      expect(connectionText(connection({ state }), true).problem).toBeNull();
    }
  });

  it("shows that the page may be out of date, and the number of attempts", () => {
    const { label, attempts, problem } = connectionText(
      connection({ state: "reconnecting", attempts: 3 }),
      true,
    );
    expect([label, attempts]).toEqual(["Reconnecting", 3]);
    expect(problem?.text).toMatch(/may be out of date.*3 attempts so far/);
  });

  it("shows that the proxy does not forward WebSockets", () => {
    const { problem } = connectionText(
      connection({ state: "reconnecting", code: "no_websocket", attempts: 3 }),
      true,
    );
    expect(problem?.title).toBe("The server answers, but no WebSocket opens.");
    expect(problem?.text).toMatch(/proxy has to forward WebSockets.*3 attempts so far/);
  });

  it.each(["unavailable", "too_many_connections"])(
    "shows why the server accepts no connection: %s",
    (code) => {
      const { problem } = connectionText(
        connection({ state: "reconnecting", code, message: "it is about to exit", attempts: 3 }),
        true,
      );
      expect(problem?.title).toBe("The server accepts no connection now.");
      expect(problem?.text).toMatch(/^It is about to exit\. .*3 attempts so far/);
    },
  );

  it("trusts an open connection more than the browser's offline state", () => {
    expect(connectionText(connection({}), false).state).toBe("connected");
    expect(connectionText(connection({ state: "reconnecting" }), false).state).toBe("offline");
  });

  it("shows why the connection was refused", () => {
    const refused = connection({ state: "refused", code: "token_expired", message: "too late" });
    expect(connectionText(refused, true).problem).toEqual({
      title: "Your sign-in has expired.",
      text: expect.stringMatching(
        /^Message of the server: too late\. Try again, or sign in again\./,
      ),
    });
  });

  it("names the setting that allows the page's origin, not the sign-in", () => {
    vi.stubGlobal("location", new URL("https://console.example.com/live"));
    const refused = connection({ state: "refused", code: "forbidden", message: "403" });
    const problem = connectionText(refused, true).problem;
    expect(problem?.text).toContain("add https://console.example.com to JOBCAST_CORS_ORIGINS");
    expect(`${problem?.title} ${problem?.text}`).not.toMatch(/sign/i);
  });
});
