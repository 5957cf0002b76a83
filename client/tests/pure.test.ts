/** The parts that know no connection: lists, times, and what events add up to. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { backoff, FIRST_DELAY, LONGEST_DELAY } from "../src/backoff.js";
import { Frames } from "../src/frames.js";
import type { JobEvent } from "../src/protocol.js";
import {
  emptyRecord,
  HISTORY_LIMIT,
  type JobRecord,
  knownEvents,
  see,
  settle,
} from "../src/state.js";
import { Listeners } from "../src/store.js";
import { Tail } from "../src/tail.js";
import { Timers } from "../src/timers.js";

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("a tail", () => {
  test("keeps the last items, and says how many there were before", () => {
    let tail = new Tail<number>();
    for (let n = 0; n < 1000; n += 1) {
      tail = tail.add(n, 10);
    }
    expect(tail.items).toEqual([990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
    expect(tail.dropped).toBe(990);
    expect(tail.items).toBe(tail.items);
  });

  test("never changes, whatever comes of it", () => {
    const one = new Tail<string>().add("a", 3).add("b", 3);
    const [left, right] = [one.add("left", 3), one.add("right", 3)];
    expect(one.items).toEqual(["a", "b"]);
    expect(left.items).toEqual(["a", "b", "left"]);
    expect(right.items).toEqual(["a", "b", "right"]);
    expect(left.add("x", 3).items).toEqual(["b", "left", "x"]);
  });

  test("of every size is what slicing an array gives", () => {
    for (const limit of [0, 1, 2, 5]) {
      let tail = new Tail<number>();
      for (let n = 1; n <= 20; n += 1) {
        tail = tail.add(n, limit);
        const all = Array.from({ length: n }, (_, index) => index + 1);
        expect(tail.items).toEqual(limit === 0 ? [] : all.slice(-limit));
        expect(tail.dropped).toBe(Math.max(0, n - limit));
      }
    }
  });
});

describe("the backoff", () => {
  test("doubles up to its bound, and is never the same for two", () => {
    expect([0, 1, 2, 3].map((tries) => backoff(tries, 1))).toEqual([100, 200, 400, 800]);
    expect(backoff(0, 0)).toBe(FIRST_DELAY / 2);
    expect(backoff(1000, 1)).toBe(LONGEST_DELAY);
    expect(backoff(1000, 0)).toBe(LONGEST_DELAY / 2);
  });
});

describe("timers", () => {
  test("can be called off, one or all", () => {
    vi.useFakeTimers();
    const timers = new Timers();
    const [one, two, three] = [vi.fn(), vi.fn(), vi.fn()];
    timers.after(10, one);
    timers.after(10, two)();
    timers.after(30, three);
    vi.advanceTimersByTime(20);
    expect(one).toHaveBeenCalledOnce();
    expect(two).not.toHaveBeenCalled();
    expect(timers.size).toBe(1);
    timers.clear();
    vi.advanceTimersByTime(20);
    expect(three).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("throw at nobody", () => {
    vi.useFakeTimers();
    const said = vi.spyOn(console, "error").mockImplementation(() => {});
    const flaw = new Error("a flaw");
    new Timers().after(10, () => {
      throw flaw;
    });
    vi.advanceTimersByTime(10);
    expect(said).toHaveBeenCalledExactlyOnceWith(flaw);
  });
});

describe("frames", () => {
  let frame: (() => void) | null;

  beforeEach(() => {
    frame = null;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    vi.stubGlobal("requestAnimationFrame", (action: () => void) => {
      frame = action;
      return 1;
    });
    vi.stubGlobal("cancelAnimationFrame", () => {
      frame = null;
    });
  });

  afterEach(() => vi.unstubAllGlobals());

  test("tell each once, however often something changed", () => {
    const frames = new Frames();
    const [one, two] = [vi.fn(), vi.fn()];
    for (let n = 0; n < 100; n += 1) {
      frames.request(one);
      frames.request(two);
    }
    expect(one).not.toHaveBeenCalled();
    frame?.();
    expect(one).toHaveBeenCalledOnce();
    expect(two).toHaveBeenCalledOnce();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("are timers where the page is hidden, or gets hidden", () => {
    const frames = new Frames();
    const listener = vi.fn();
    frames.request(listener); // visible, and then no frame comes
    vi.runAllTimers();
    expect(listener).toHaveBeenCalledOnce();
    vi.stubGlobal("document", { visibilityState: "hidden" });
    frame = null;
    frames.request(listener);
    expect(frame).toBeNull();
    vi.advanceTimersByTime(20);
    expect(listener).toHaveBeenCalledTimes(2);
  });

  test("that are not waited for leave nothing behind", () => {
    const frames = new Frames();
    const listener = vi.fn();
    frames.request(listener);
    frames.flush();
    expect(listener).toHaveBeenCalledOnce();
    expect(frame).toBeNull();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("listeners", () => {
  test("that throw hurt no other, and are reported", () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const listeners = new Listeners();
    const listener = vi.fn();
    listeners.add(() => {
      throw new Error("mine");
    });
    listeners.add(listener);
    listeners.tell();
    expect(listener).toHaveBeenCalledOnce();
    expect(reported).toHaveBeenCalledWith(new Error("mine"));
  });

  test("are each for themselves, and gone when they were taken away meanwhile", () => {
    const listeners = new Listeners();
    const listener = vi.fn();
    const stop = listeners.add(listener);
    const other = listeners.add(listener);
    stop();
    stop();
    expect(listeners.size).toBe(1);
    listeners.tell();
    expect(listener).toHaveBeenCalledOnce();
    listeners.add(() => last());
    const last = listeners.add(listener);
    other();
    listeners.tell();
    expect(listener).toHaveBeenCalledOnce();
  });
});

describe("a record", () => {
  const TIME = "2026-01-15T09:30:";
  const at = (second: number): string => `${TIME}${String(second).padStart(2, "0")}Z`;
  type Told<E = JobEvent> = E extends JobEvent ? Omit<E, "job_id" | "seq" | "timestamp"> : never;
  const told = (record: JobRecord, ...events: Told[]): JobRecord =>
    events.reduce((seen, event) => {
      const seq = seen.changes.items.length + seen.logs.items.length + (seen.progress ? 1 : 0) + 1;
      return see(seen, { job_id: "a", seq, timestamp: at(seq), ...event } as JobEvent, 1000);
    }, record);
  const queued: Told = { type: "job_status", status: "queued", task: "tasks.work" };
  const started = (run: number, attempt = 1): Told => ({
    type: "job_status",
    status: "started",
    run,
    attempt,
  });
  const progress: Told = { type: "job_progress", percentage: 50, message: "half", stage: "read" };
  const log: Told = { type: "job_log", level: "info", message: "a line" };
  const failure: Told = { type: "job_error", error: "KeyError", message: "no", reason: "failure" };
  const complete: Told = { type: "job_complete", result: 7 };

  test("of a new run has no progress, no result and no error, but the logs", () => {
    const ended = told(emptyRecord(), queued, started(1), progress, log, failure);
    expect(ended).toMatchObject({ status: "error", task: "tasks.work", run: 1 });
    expect(ended.endedAt).not.toBeNull();
    for (const again of [told(ended, started(2)), told(ended, queued)]) {
      expect(again).toMatchObject({ progress: null, result: null, error: null, endedAt: null });
      expect(again.logs.items).toHaveLength(1);
      expect(again.history.items.length).toBe(4);
    }
    expect(told(ended, queued).startedAt).toBeNull();
    expect(told(ended, started(2))).toMatchObject({ run: 2, startedAt: at(6) });
  });

  test("of a run that is heard of again has lost nothing", () => {
    const stalled = told(emptyRecord(), started(1), progress, {
      type: "job_status",
      status: "stalled",
    });
    expect(stalled.status).toBe("stalled");
    const revived = told(stalled, started(1));
    expect(revived).toMatchObject({ status: "started", run: 1, startedAt: at(1) });
    expect(revived.progress).toMatchObject({ percentage: 50 });
  });

  test("says which retry is due, and forgets it when it began", () => {
    const retrying = told(emptyRecord(), started(1), {
      type: "job_status",
      status: "retrying",
      attempt: 2,
      eta: at(59),
      error: "OSError",
      message: "try again",
    });
    expect(retrying).toMatchObject({
      status: "retrying",
      attempt: 1,
      retry: { attempt: 2, eta: at(59), error: "OSError", message: "try again" },
    });
    expect(told(retrying, started(2, 2))).toMatchObject({ attempt: 2, retry: null });
  });

  test("takes the attempt from a retry when nothing before it is known", () => {
    const retrying: Told = { type: "job_status", status: "retrying", attempt: 4 };
    expect(told(emptyRecord(), retrying)).toMatchObject({ attempt: 3, retry: { attempt: 4 } });
  });

  test("ends with a result or an error, and keeps how far it was", () => {
    const done = told(emptyRecord(), started(1), progress, complete);
    expect(done).toMatchObject({ status: "complete", result: 7, error: null });
    expect(done.progress).toMatchObject({ percentage: 50 });
    expect(told(emptyRecord(), failure).history.items).toMatchObject([
      { status: "error", error: "KeyError", message: "no", reason: "failure" },
    ]);
  });

  test("takes the server's word for the state, unless something newer was seen", () => {
    const record = told(emptyRecord(), started(1));
    expect(settle(record, "stalled", 1).status).toBe("stalled");
    expect(settle(record, "queued", 0).status).toBe("started");
    expect(settle(record, "started", 9)).toBe(record);
  });

  test("is never changed", () => {
    const before = told(emptyRecord(), started(1), log);
    const copy = structuredClone({ ...before, logs: 0, changes: 0, history: 0 });
    const lines = before.logs.items.length;
    told(before, log, progress, complete);
    expect({ ...before, logs: 0, changes: 0, history: 0 }).toEqual(copy);
    expect(before.logs.items).toHaveLength(lines);
  });

  test("tells a newcomer what there was, in order", () => {
    const record = told(emptyRecord(), queued, started(1), log, progress, log);
    expect(knownEvents(record).map((event) => event.type)).toEqual([
      "job_status",
      "job_status",
      "job_log",
      "job_progress",
      "job_log",
    ]);
  });

  test("keeps a bounded history", () => {
    let record = emptyRecord();
    for (let n = 1; n <= 2 * HISTORY_LIMIT; n += 1) {
      record = told(record, started(n));
    }
    expect(record.history.items).toHaveLength(HISTORY_LIMIT);
  });

  test("takes 10,000 lines without copying what it has", () => {
    const lines = Array.from({ length: 10_000 }, (_, n): JobEvent => {
      return {
        type: "job_log",
        job_id: "a",
        seq: n + 1,
        timestamp: at(1),
        level: "info",
        message: "",
      };
    });
    const slices = vi.spyOn(Array.prototype, "slice");
    const record = lines.reduce((seen, line) => see(seen, line, 1000), emptyRecord());
    expect(slices.mock.calls.length).toBeLessThan(20);
    slices.mockRestore();
    expect(record.logs.items.at(-1)?.seq).toBe(10_000);
    expect(record.logs.dropped).toBe(9000);
  });
});
