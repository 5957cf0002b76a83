import { describe, expect, it } from "vitest";
import { about, ago, between, clock, span } from "../src/lib/durations";

describe("durations", () => {
  it.each([
    [-5, "0:00"],
    [999, "0:00"],
    [42_900, "0:42"],
    [723_000, "12:03"],
    [3_723_000, "1:02:03"],
  ])("shows %d ms on a clock as %s", (ms, text) => expect(clock(ms)).toBe(text));

  it.each([
    [3, "3 ms"],
    [180, "0.2 s"],
    [4_210, "4.2 s"],
    [9_960, "10 s"],
    [42_400, "42 s"],
    [59_700, "1 min"],
    [187_000, "3 min 7 s"],
    [3_600_000, "1 h"],
    [7_500_000, "2 h 5 min"],
    [100 * 3_600_000, "4 d 4 h"],
  ])("says %d ms as %s", (ms, text) => expect(span(ms)).toBe(text));

  it.each([
    [0, "about 1 s"],
    [12.4, "about 12 s"],
    [48, "about 50 s"],
    [200, "about 3 min"],
    [6_000, "about 1 h 40 min"],
  ])("does not promise %d s: %s", (seconds, text) => expect(about(seconds)).toBe(text));

  it("says how long ago something was", () => {
    expect([ago(-10), ago(59_999), ago(300_000), ago(7_200_000), ago(2 * 86_400_000)]).toEqual([
      "just now",
      "just now",
      "5 min ago",
      "2 h ago",
      "2 d ago",
    ]);
  });

  it("takes no time for less than none, and knows nothing of what is missing", () => {
    expect(between("2026-01-15T09:30:01Z", "2026-01-15T09:30:00Z")).toBe(0);
    expect(between(null, "2026-01-15T09:30:00Z")).toBeNull();
  });
});
