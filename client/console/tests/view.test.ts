import { describe, expect, it } from "vitest";
import { jobHash, listHash, parseRoute } from "../src/lib/route";
import { DEFAULT_VIEW, filterCount, parseView, type View, viewQuery } from "../src/lib/view";

const VIEW: View = {
  feed: "tag:nightly",
  group: "failed",
  task: "tasks.report",
  tag: "project:7 & more",
  owner: "ada@example.com",
  since: "24h",
  search: "march #3",
};

describe("the view in the address", () => {
  it("is the same after a round trip", () => {
    expect(parseView(viewQuery(VIEW))).toEqual(VIEW);
    expect(parseView(viewQuery(DEFAULT_VIEW))).toEqual(DEFAULT_VIEW);
    expect(viewQuery(DEFAULT_VIEW)).toBe("");
  });

  it.each(["?show=everything", "?since=1000y", "?since=constructor", "?feed=", "?x=1", "?%"])(
    "ignores the invalid query %s",
    (query) => expect(parseView(query)).toEqual(DEFAULT_VIEW),
  );

  it("counts its filters", () => {
    expect([filterCount(DEFAULT_VIEW), filterCount(VIEW)]).toEqual([0, 4]);
  });
});

describe("the route", () => {
  it("has a page and the view of the list", () => {
    expect(parseRoute("")).toEqual({ page: "home", view: DEFAULT_VIEW });
    expect(parseRoute(listHash(VIEW))).toEqual({ page: "home", view: VIEW });
    expect(parseRoute(jobHash("a/b?c", VIEW))).toEqual({ page: "job", jobId: "a/b?c", view: VIEW });
    expect(parseRoute("#/start?show=stuck")).toEqual({
      page: "start",
      view: { ...DEFAULT_VIEW, group: "stuck" },
    });
  });

  it("tolerates a bare percent sign in a job id", () => {
    expect(parseRoute("#/jobs/100%")).toMatchObject({ page: "job", jobId: "100%" });
  });
});
