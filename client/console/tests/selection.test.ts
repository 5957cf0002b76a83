import type { JobSummary } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import { DEFAULT_VIEW, type View } from "../src/lib/view";
import { facetsOf } from "../src/list/facets";
import { selectJobs } from "../src/list/selection";
import { stuckReason } from "../src/list/stuck";
import { at, START, summary } from "./factories";

const NOW = START + 3600_000;

function select(jobs: readonly JobSummary[], view: Partial<View> = {}): string[] {
  return selectJobs(jobs, { ...DEFAULT_VIEW, ...view }, NOW).jobs.map(({ jobId }) => jobId);
}

const JOBS: readonly JobSummary[] = [
  summary({ jobId: "fresh", status: "queued", startedAt: null, createdAt: at(3599) }),
  summary({
    jobId: "running",
    tags: ["project:7"],
    owner: "ada",
    title: "March report",
    message: "volatile",
  }),
  summary({ jobId: "waiting", status: "queued", startedAt: null, createdAt: at(60) }),
  summary({ jobId: "failed", status: "error", reason: "failure", message: "KeyError: 'x'" }),
  summary({ jobId: "again", status: "retrying", attempt: 4, task: "tasks.feeds.fetch" }),
  summary({ jobId: "cancelled", status: "cancelled", endedAt: at(9) }),
  summary({ jobId: "stalled", status: "stalled", owner: "bob" }),
  summary({ jobId: "done", status: "complete", attempt: 5 }),
  summary({ jobId: "future", status: "waiting_for_parent" }),
];

describe("the list", () => {
  it("begins with the stuck jobs, and keeps the order of the others", () => {
    expect(select(JOBS)).toEqual([
      ...["stalled", "again", "waiting"],
      ...["fresh", "running", "failed", "cancelled", "done", "future"],
    ]);
  });

  it("counts the jobs of each group, and shows the chosen one", () => {
    const { counts } = selectJobs(JOBS, { ...DEFAULT_VIEW, group: "done" }, NOW);
    const states = { queued: 2, running: 4, failed: 1, cancelled: 1, done: 1 };
    expect(counts).toEqual({ all: 9, stuck: 3, ...states });
    expect(select(JOBS, { group: "stuck" })).toEqual(["stalled", "again", "waiting"]);
    expect(select(JOBS, { group: "failed" })).toEqual(["failed"]);
    expect(select(JOBS, { group: "cancelled" })).toEqual(["cancelled"]);
    expect(select(JOBS, { group: "queued" })).toEqual(["waiting", "fresh"]);
    expect(select(JOBS, { group: "done" })).toEqual(["done"]);
  });

  it.each<[Partial<View>, string[]]>([
    [{ task: "tasks.feeds.fetch" }, ["again"]],
    [{ tag: "project:7" }, ["running"]],
    [{ owner: "bob" }, ["stalled"]],
    [{ since: "15m" }, ["fresh"]],
    [{ search: "REPORT march" }, ["running"]],
    [{ search: "keyerror" }, ["failed"]],
    [{ search: "project:7" }, ["running"]],
    [{ search: "volatile" }, []],
    [{ search: "stal" }, ["stalled"]],
    [{ search: "report", owner: "bob" }, []],
  ])("with the view %o shows %o", (view, expected) => {
    expect(select(JOBS, view)).toEqual(expected);
  });
});

describe("a stuck job", () => {
  const reason = (values: Partial<JobSummary>): string | undefined =>
    stuckReason(summary(values), NOW)?.reason;

  it("is stalled, queued for long, or retrying often", () => {
    expect(reason({ status: "stalled" })).toBe("The worker stopped reporting");
    expect(reason({ status: "started", attempt: 3 })).toBe("Attempt 3");
    const queued = { status: "queued", startedAt: null } as const;
    expect(reason({ ...queued, createdAt: at(3300) })).toBe("Waiting for a worker for 5 min");
    expect(reason({ ...queued, createdAt: at(3590) })).toBeUndefined();
    expect(reason({ status: "started", attempt: 2 })).toBeUndefined();
    expect(reason({ status: "error", attempt: 9 })).toBeUndefined();
  });
});

describe("the choices of the filters", () => {
  it("are the values of the jobs, the most frequent first", () => {
    const jobs = [
      summary({ task: "b", tags: ["x", "y"], owner: null }),
      summary({ task: "a", tags: ["y"], owner: "ada" }),
      summary({ task: "b", tags: [] }),
      summary({ task: null }),
    ];
    expect(facetsOf(jobs)).toEqual({ tasks: ["b", "a"], tags: ["y", "x"], owners: ["ada"] });
  });
});
