import type { Connection } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import { connectionWords } from "../src/connection/connectionWords";
import { listed } from "../src/jobs/jobList";
import { complaintsOf, lastWordsOf } from "../src/lib/lastWords";
import { nameOf, shortId } from "../src/lib/names";
import { bytes, count, percent, plural, rate } from "../src/lib/numbers";
import { hashOf, routeOf } from "../src/lib/route";
import { cut, matches, step } from "../src/lib/search";
import { omittedOf, summaryOf } from "../src/lib/summary";
import { job, line } from "./jobs";

describe("numbers", () => {
  it("are for people", () => {
    expect([count(19_994), count(2.55), percent(99.97)]).toEqual(["19,994", "2.6", "99%"]);
    expect([rate(2.5), rate(12_345.6), rate(208_000_000)]).toEqual(["2.5/s", "12,346/s", "208M/s"]);
    expect([plural(1, "line"), plural(12_000, "line")]).toEqual(["1 line", "12,000 lines"]);
    expect([bytes(1), bytes(3100), bytes(33_554_432)]).toEqual(["1 byte", "3.1 kB", "33.6 MB"]);
  });
});

describe("names", () => {
  it("shorten ids to what tells them apart", () => {
    expect(shortId("0b0b6a5e-9b5c-4d2c-8d55-0d6f8a1f2c3d")).toBe("0b0b6a5e");
    expect(shortId("import_csv-4ed0428f")).toBe("4ed0428f");
    expect(shortId("report-42")).toBe("report-42");
    expect(shortId("a-report-with-a-long-name")).toBe("a-report-with-a-l…");
  });

  it("come from the list, the task, or the id", () => {
    expect(nameOf("x", "Import people", "tasks.a")).toBe("Import people");
    expect(nameOf("x", null, "tasks.people.import_csv")).toBe("Import csv");
    expect(nameOf("report-42", null, null)).toBe("Job report-42");
  });
});

describe("routes", () => {
  it("go there and back for every id that can be one", () => {
    for (const jobId of ["a-1", "a/b:c.d@e=f+g~h", "50%"]) {
      expect(routeOf(hashOf(jobId))).toEqual({ page: "job", jobId });
    }
  });

  it.each(["", "#", "#/", "#/jobs", "#/jobs/", "#/nowhere"])("lead home from %j", (hash) =>
    expect(routeOf(hash)).toEqual({ page: "home" }),
  );

  it("bear what people write by hand", () => {
    expect(routeOf("#/jobs/a/b")).toEqual({ page: "job", jobId: "a/b" });
    expect(routeOf("#/jobs/50%")).toEqual({ page: "job", jobId: "50%" });
    expect(routeOf("#/start")).toEqual({ page: "start" });
  });
});

describe("search", () => {
  it("cuts a text where the words are, whatever their case", () => {
    expect(cut("Error: an error", "ERROR")).toEqual([
      { text: "Error", hit: true },
      { text: ": an ", hit: false },
      { text: "error", hit: true },
    ]);
    expect(cut("abc", "")).toEqual([{ text: "abc", hit: false }]);
    expect(cut("abc", "x")).toEqual([{ text: "abc", hit: false }]);
    expect(matches("abc", "")).toBe(false);
  });

  it("keeps the whole text where lower case is longer", () => {
    expect(
      cut("İstanbul", "stan")
        .map(({ text }) => text)
        .join(""),
    ).toBe("İstanbul");
  });

  it("steps through its hits, round and round", () => {
    const hits = [2, 5, 9];
    expect([step(hits, -1, 1), step(hits, 2, 1), step(hits, 9, 1)]).toEqual([2, 5, 2]);
    expect([step(hits, 9, -1), step(hits, 2, -1), step([], 0, 1)]).toEqual([5, 9, null]);
  });
});

describe("results", () => {
  it("are summed up when they are small", () => {
    expect(summaryOf({ imported: 19_994, rejected: 6 })).toBe("imported 19,994 · rejected 6");
    expect(summaryOf("x".repeat(30))).toBe(`${"x".repeat(23)}…`);
    expect([summaryOf(null), summaryOf([1]), summaryOf({}), summaryOf({ a: {} })]).toEqual([
      null,
      null,
      null,
      null,
    ]);
  });

  it("that were left out are said to be", () => {
    const large = { omitted: "too_large", type: "list", bytes: 70_000, limit: 65_536 };
    expect(omittedOf(large)).toBe(
      "The result (list) is too large to be shown: it has 70,000 bytes, and 65,536 are sent at most.",
    );
    expect(omittedOf({ omitted: "unserializable", type: "socket" })).toMatch(/\(socket\).*JSON/);
    expect([omittedOf({ omitted: 3 }), omittedOf([])]).toEqual([null, null]);
  });
});

describe("last words", () => {
  it("are warnings and errors, the last of them", () => {
    const logs = [1, 2, 3, 4, 5].map((seq) =>
      line(seq, { level: seq === 3 ? "error" : "warning" }),
    );
    const words = lastWordsOf(job({ status: "error", logs: [...logs, line(6)] }));
    expect(words?.title).toBe("1 error and 4 warnings, the last 3");
    expect(words?.lines.map(({ seq }) => seq)).toEqual([3, 4, 5]);
  });

  it("are any lines of a job that failed without one", () => {
    expect(lastWordsOf(job({ status: "error", logs: [line(1)] }))?.title).toBe(
      "Its last log lines",
    );
    expect(lastWordsOf(job({ status: "complete", logs: [line(1)] }))).toBeNull();
    expect(complaintsOf(job({ logs: [line(1, { level: "critical" })] }))).toBe("1 error");
  });
});

describe("the list", () => {
  it("has each job once, the newest first", () => {
    const sent = [
      { jobId: "b", task: null, title: "B", sentAt: "2026-01-15T09:00:00Z" },
      { jobId: "a", task: null, title: "A", sentAt: "2026-01-15T08:00:00Z" },
    ];
    const followed = [
      { jobId: "c", at: "2026-01-15T08:30:00Z" },
      { jobId: "a", at: "2026-01-15T10:00:00Z" },
    ];
    expect(listed(sent, followed).map((one) => [one.jobId, one.sent])).toEqual([
      ["b", true],
      ["c", false],
      ["a", true],
    ]);
  });
});

describe("the connection", () => {
  const connection = (what: Partial<Connection>): Connection => ({
    state: "connected",
    code: null,
    message: null,
    attempts: 0,
    since: 0,
    ...what,
  });

  it("is quiet while it is fine", () => {
    for (const state of ["idle", "connecting", "connected"] as const) {
      expect(connectionWords(connection({ state }), true).problem).toBeNull();
    }
  });

  it("says that the page may be behind, and how often it tried", () => {
    const { short, problem } = connectionWords(
      connection({ state: "reconnecting", attempts: 3 }),
      true,
    );
    expect(short).toBe("Reconnecting (3)");
    expect(problem?.text).toMatch(/may be behind.*Tried 3 times/);
  });

  it("believes a connection that is there more than the browser", () => {
    expect(connectionWords(connection({}), false).state).toBe("connected");
    expect(connectionWords(connection({ state: "reconnecting" }), false).state).toBe("offline");
  });

  it("says why it was refused", () => {
    const refused = connection({ state: "refused", code: "token_expired", message: "too late" });
    expect(connectionWords(refused, true).problem).toEqual({
      title: "The sign-in has expired.",
      text: expect.stringMatching(/^It says: too late\. Try again, or sign in anew\./),
    });
  });
});
