import { describe, expect, it } from "vitest";
import {
  elapsed,
  formatAge,
  formatClock,
  formatDuration,
  formatEstimate,
} from "../src/lib/formatDuration";

describe("durations", () => {
  it.each([
    [-5, "0:00"],
    [999, "0:00"],
    [42_900, "0:42"],
    [723_000, "12:03"],
    [3_723_000, "1:02:03"],
  ])("shows %d ms on a clock as %s", (ms, text) => expect(formatClock(ms)).toBe(text));

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
  ])("formats %d ms as %s", (ms, text) => expect(formatDuration(ms)).toBe(text));

  it.each([
    [0, "about 1 s"],
    [12.4, "about 12 s"],
    [48, "about 50 s"],
    [200, "about 3 min"],
    [6_000, "about 1 h 40 min"],
  ])("estimates %d s as %s", (seconds, text) => expect(formatEstimate(seconds)).toBe(text));

  it("formats ages", () => {
    expect([
      formatAge(-10),
      formatAge(59_999),
      formatAge(300_000),
      formatAge(7_200_000),
      formatAge(2 * 86_400_000),
    ]).toEqual(["just now", "just now", "5 min ago", "2 h ago", "2 d ago"]);
  });

  it("clamps negative durations to 0, and needs both timestamps", () => {
    expect(elapsed("2026-01-15T09:30:01Z", "2026-01-15T09:30:00Z")).toBe(0);
    expect(elapsed(null, "2026-01-15T09:30:00Z")).toBeNull();
  });
});
