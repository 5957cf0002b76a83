/** The parts that need no connection: windows, timers, frames, listeners and records. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AppendOnlyWindow } from "../src/appendOnlyWindow.js";
import { BASE_DELAY, backoff, MAX_DELAY } from "../src/backoff.js";
import { FrameScheduler } from "../src/frameScheduler.js";
import { NO_INFO } from "../src/info.js";
import type { JobEvent, JoinedMessage } from "../src/protocol.js";
import {
  addGap,
  applyEvent,
  applyJoinedInfo,
  applyStatus,
  emptyRecord,
  eventsToReplay,
  HISTORY_LIMIT,
  type JobRecord,
} from "../src/record.js";
import { Listeners } from "../src/store.js";
import { Timers } from "../src/timers.js";

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("an append-only window", () => {
  test("keeps the last items and counts the dropped ones", () => {
    let window = new AppendOnlyWindow<number>();
    for (let n = 0; n < 1000; n += 1) {
      window = window.add(n, 10);
    }
    expect(window.items).toEqual([990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
    expect(window.dropped).toBe(990);
    expect(window.items).toBe(window.items);
  });

  test("is immutable", () => {
    const one = new AppendOnlyWindow<string>().add("a", 3).add("b", 3);
    const [left, right] = [one.add("left", 3), one.add("right", 3)];
    expect(one.items).toEqual(["a", "b"]);
    expect(left.items).toEqual(["a", "b", "left"]);
    expect(right.items).toEqual(["a", "b", "right"]);
    expect(left.add("x", 3).items).toEqual(["b", "left", "x"]);
  });

  test("equals a slice of the whole list, for every limit", () => {
    for (const limit of [0, 1, 2, 5]) {
      let window = new AppendOnlyWindow<number>();
      for (let n = 1; n <= 20; n += 1) {
        window = window.add(n, limit);
        const all = Array.from({ length: n }, (_, index) => index + 1);
        expect(window.items).toEqual(limit === 0 ? [] : all.slice(-limit));
        expect(window.dropped).toBe(Math.max(0, n - limit));
      }
    }
  });
});

describe("the backoff", () => {
  test("doubles up to its maximum and has jitter", () => {
    expect([0, 1, 2, 3].map((retries) => backoff(retries, 1))).toEqual([100, 200, 400, 800]);
    expect(backoff(0, 0)).toBe(BASE_DELAY / 2);
    expect(backoff(1000, 1)).toBe(MAX_DELAY);
    expect(backoff(1000, 0)).toBe(MAX_DELAY / 2);
  });
});

describe("timers", () => {
  test("can be cancelled one by one or all at once", () => {
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

  test("report what their action throws", () => {
    vi.useFakeTimers();
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const error = new Error("a bug");
    new Timers().after(10, () => {
      throw error;
    });
    vi.advanceTimersByTime(10);
    expect(reported).toHaveBeenCalledExactlyOnceWith(error);
  });
});

describe("the frame scheduler", () => {
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

  test("runs each callback once per frame, however often it was scheduled", () => {
    const frames = new FrameScheduler();
    const [one, two] = [vi.fn(), vi.fn()];
    for (let n = 0; n < 100; n += 1) {
      frames.schedule(one);
      frames.schedule(two);
    }
    expect(one).not.toHaveBeenCalled();
    frame?.();
    expect(one).toHaveBeenCalledOnce();
    expect(two).toHaveBeenCalledOnce();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("falls back to timers if the page is or becomes hidden", () => {
    const frames = new FrameScheduler();
    const listener = vi.fn();
    frames.schedule(listener); // the page is visible, but no frame arrives
    vi.runAllTimers();
    expect(listener).toHaveBeenCalledOnce();
    vi.stubGlobal("document", { visibilityState: "hidden" });
    frame = null;
    frames.schedule(listener);
    expect(frame).toBeNull();
    vi.advanceTimersByTime(20);
    expect(listener).toHaveBeenCalledTimes(2);
  });

  test("cancels its frame and its timer when it is flushed", () => {
    const frames = new FrameScheduler();
    const listener = vi.fn();
    frames.schedule(listener);
    frames.flush();
    expect(listener).toHaveBeenCalledOnce();
    expect(frame).toBeNull();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("listeners", () => {
  test("that throw are reported and do not affect the others", () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const listeners = new Listeners();
    const listener = vi.fn();
    listeners.add(() => {
      throw new Error("mine");
    });
    listeners.add(listener);
    listeners.notify();
    expect(listener).toHaveBeenCalledOnce();
    expect(reported).toHaveBeenCalledWith(new Error("mine"));
  });

  test("are counted separately, and removed ones are not called", () => {
    const listeners = new Listeners();
    const listener = vi.fn();
    const stop = listeners.add(listener);
    const other = listeners.add(listener);
    stop();
    stop();
    expect(listeners.size).toBe(1);
    listeners.notify();
    expect(listener).toHaveBeenCalledOnce();
    listeners.add(() => last());
    const last = listeners.add(listener);
    other();
    listeners.notify();
    expect(listener).toHaveBeenCalledOnce();
  });
});

describe("a record", () => {
  const TIME = "2026-01-15T09:30:";
  const at = (second: number): string => `${TIME}${String(second).padStart(2, "0")}Z`;
  type Payload<E = JobEvent> = E extends JobEvent ? Omit<E, "job_id" | "seq" | "timestamp"> : never;
  const apply = (record: JobRecord, ...events: Payload[]): JobRecord =>
    events.reduce((seen, event) => {
      const seq = seen.changes.items.length + seen.logs.items.length + (seen.progress ? 1 : 0) + 1;
      return applyEvent(seen, { job_id: "a", seq, timestamp: at(seq), ...event } as JobEvent, 1000);
    }, record);
  const queued: Payload = { type: "job_status", status: "queued", task: "tasks.work" };
  const started = (run: number, attempt = 1): Payload => ({
    type: "job_status",
    status: "started",
    run,
    attempt,
  });
  const progress: Payload = {
    type: "job_progress",
    percentage: 50,
    message: "half",
    stage: "read",
  };
  const log: Payload = { type: "job_log", level: "info", message: "a line" };
  const failure: Payload = {
    type: "job_error",
    error: "KeyError",
    message: "no",
    reason: "failure",
  };
  const complete: Payload = { type: "job_complete", result: 7 };

  test("a new run resets progress, result and error, and keeps the logs", () => {
    const ended = apply(emptyRecord(), queued, started(1), progress, log, failure);
    expect(ended).toMatchObject({ status: "error", info: { task: "tasks.work" }, run: 1 });
    expect(ended.endedAt).not.toBeNull();
    for (const again of [apply(ended, started(2)), apply(ended, queued)]) {
      expect(again).toMatchObject({ progress: null, result: null, error: null, endedAt: null });
      expect(again.logs.items).toHaveLength(1);
      expect(again.history.items.length).toBe(4);
    }
    expect(apply(ended, queued).startedAt).toBeNull();
    expect(apply(ended, started(2))).toMatchObject({ run: 2, startedAt: at(6) });
  });

  test("a stalled run that resumes keeps its progress and start time", () => {
    const stalled = apply(emptyRecord(), started(1), progress, {
      type: "job_status",
      status: "stalled",
    });
    expect(stalled.status).toBe("stalled");
    const resumed = apply(stalled, started(1));
    expect(resumed).toMatchObject({ status: "started", run: 1, startedAt: at(1) });
    expect(resumed.progress).toMatchObject({ percentage: 50 });
  });

  test("has the scheduled retry until it starts", () => {
    const retrying = apply(emptyRecord(), started(1), {
      type: "job_status",
      status: "retrying",
      attempt: 2,
      retry_at: at(59),
      error: "OSError",
      message: "try again",
    });
    expect(retrying).toMatchObject({
      status: "retrying",
      attempt: 1,
      retry: { attempt: 2, retryAt: at(59), error: "OSError", message: "try again" },
    });
    expect(apply(retrying, started(2, 2))).toMatchObject({ attempt: 2, retry: null });
  });

  test("derives the attempt from a retry if earlier events are missing", () => {
    const retrying: Payload = { type: "job_status", status: "retrying", attempt: 4 };
    expect(apply(emptyRecord(), retrying)).toMatchObject({ attempt: 3, retry: { attempt: 4 } });
  });

  test("keeps its progress when the job ends", () => {
    const done = apply(emptyRecord(), started(1), progress, complete);
    expect(done).toMatchObject({ status: "complete", result: 7, error: null });
    expect(done.progress).toMatchObject({ percentage: 50 });
    expect(apply(emptyRecord(), failure).history.items).toMatchObject([
      { status: "error", error: "KeyError", message: "no", reason: "failure" },
    ]);
  });

  test("adopts the status that the server reports, unless a newer one is known", () => {
    const record = apply(emptyRecord(), started(1));
    expect(applyStatus(record, "stalled", 1).status).toBe("stalled");
    expect(applyStatus(record, "queued", 0).status).toBe("started");
    expect(applyStatus(record, "started", 9)).toBe(record);
  });

  test.each(["paused", "constructor"])("an unknown status (%s) has not ended", (status) => {
    const unknown: Payload = { type: "job_status", status, message: "by ada" };
    const changed = apply(emptyRecord(), started(1), progress, unknown);
    expect(changed).toMatchObject({ status, run: 1, startedAt: at(1), endedAt: null });
    expect(changed.progress).toMatchObject({ percentage: 50 });
    expect(changed.history.items.at(-1)).toMatchObject({ status, message: "by ada" });
    expect(apply(changed, complete)).toMatchObject({ status: "complete", result: 7 });
    const again = apply(changed, failure, unknown);
    expect(again).toMatchObject({ status, error: null, endedAt: null });
  });

  test("an unknown reason ends the job", () => {
    const ended = apply(emptyRecord(), started(1), { ...failure, reason: "abandoned" });
    expect(ended).toMatchObject({ status: "error", error: { reason: "abandoned" } });
    expect(ended.endedAt).not.toBeNull();
  });

  test("an unknown state that the server reports does not replace the end", () => {
    const ended = apply(emptyRecord(), started(1), failure);
    expect(applyStatus(ended, "abandoned", 2)).toBe(ended);
    expect(applyStatus(ended, "cancelled", 3)).toBe(ended);
    expect(applyStatus(ended, "started", 3).status).toBe("started");
    expect(applyStatus(apply(emptyRecord(), started(1)), "paused", 1).status).toBe("paused");
  });

  describe("of a job that is cancelled", () => {
    const cancelling: Payload = {
      type: "job_status",
      status: "cancelling",
      message: "wrong file",
      by: "ada",
    };
    const request = { by: "ada", message: "wrong file", reason: null };

    test("has the request until the job ends", () => {
      const asked = apply(emptyRecord(), started(1), progress, cancelling);
      expect(asked).toMatchObject({ status: "cancelling", cancellation: request, endedAt: null });
      expect(asked.history.items.at(-1)).toMatchObject({ status: "cancelling", by: "ada" });
      const stalled = apply(asked, { type: "job_status", status: "stalled" });
      expect(stalled).toMatchObject({ status: "stalled", cancellation: request });
      expect(apply(stalled, started(1))).toMatchObject({ cancellation: request });
      expect(apply(asked, complete)).toMatchObject({ status: "complete", cancellation: null });
      const failed = apply(asked, failure);
      expect(failed).toMatchObject({ status: "error", cancellation: null });
    });

    test.each(["cancelled", "revoked"])("has not failed if its reason is %s", (reason) => {
      const end: Payload = { ...failure, message: "wrong file", reason, by: "ada" };
      const ended = apply(emptyRecord(), started(1), cancelling, end);
      expect(ended).toMatchObject({ status: "cancelled", error: null, result: null });
      expect(ended.cancellation).toEqual({ by: "ada", message: "wrong file", reason });
      expect(ended.history.items.at(-1)).toMatchObject({ status: "cancelled", reason, by: "ada" });
      expect(ended.endedAt).not.toBeNull();
      const again = apply(ended, { type: "job_status", status: "queued" });
      expect(again).toMatchObject({ status: "queued", cancellation: null, endedAt: null });
    });

    test("describes whether a request can cancel it", () => {
      const status = (fields: object): Payload => ({
        type: "job_status",
        status: "started",
        ...fields,
      });
      expect(emptyRecord().info).toMatchObject({ cancellable: true, terminates: false });
      const first = apply(
        emptyRecord(),
        status({ cancellable: false, worker: "a", terminates: true }),
      );
      expect(first.info).toMatchObject({ cancellable: false, terminates: true });
      expect(apply(first, status({ title: "b" })).info.terminates).toBe(true);
      expect(apply(first, status({ worker: "b" })).info).toMatchObject({
        cancellable: false,
        terminates: false,
      });
    });
  });

  test("extends a gap that overlaps the previous one", () => {
    const gaps = (...bounds: [after: number, before: number][]) =>
      bounds.reduce(
        (record, [after, before]) =>
          addGap(record, { type: "job_gap", job_id: "a", after, before }),
        emptyRecord(),
      ).gaps;
    expect(gaps([5, 10], [10, 12])).toMatchObject([
      { after: 5, before: 10 },
      { after: 10, before: 12 },
    ]);
    expect(gaps([5, 10], [5, 10])).toMatchObject([{ after: 5, before: 10 }]);
    expect(gaps([5, 10], [5, 12])).toMatchObject([{ after: 5, before: 12 }]);
    expect(gaps([5, 10], [7, 12])).toMatchObject([{ after: 5, before: 12 }]);
    const many = Array.from({ length: 2 * HISTORY_LIMIT }, (_, n) => [2 * n, 2 * n + 2] as const);
    expect(gaps(...many.map(([after, before]): [number, number] => [after, before]))).toHaveLength(
      HISTORY_LIMIT,
    );
  });

  test("is immutable", () => {
    const before = apply(emptyRecord(), started(1), log);
    const copy = structuredClone({ ...before, logs: 0, changes: 0, history: 0 });
    const lines = before.logs.items.length;
    apply(before, log, progress, complete);
    expect({ ...before, logs: 0, changes: 0, history: 0 }).toEqual(copy);
    expect(before.logs.items).toHaveLength(lines);
  });

  test("replays its events in order", () => {
    const record = apply(emptyRecord(), queued, started(1), log, progress, log);
    expect(eventsToReplay(record).map((event) => event.type)).toEqual([
      "job_status",
      "job_status",
      "job_log",
      "job_progress",
      "job_log",
    ]);
  });

  test("bounds its history", () => {
    let record = emptyRecord();
    for (let n = 1; n <= 2 * HISTORY_LIMIT; n += 1) {
      record = apply(record, started(n));
    }
    expect(record.history.items).toHaveLength(HISTORY_LIMIT);
  });

  test("adds 10,000 log lines without copying the existing ones", () => {
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
    const record = lines.reduce((seen, line) => applyEvent(seen, line, 1000), emptyRecord());
    expect(slices.mock.calls.length).toBeLessThan(20);
    slices.mockRestore();
    expect(record.logs.items.at(-1)?.seq).toBe(10_000);
    expect(record.logs.dropped).toBe(9000);
  });
});

describe("the description of a job", () => {
  const stamp = { job_id: "a", timestamp: "2026-01-15T09:30:00Z" };
  const sent = "2026-01-15T09:00:00Z";

  function describedBy(events: readonly object[], joined?: object): JobRecord {
    const base = { job_id: "a", epoch: "e", seq: 0, status: "started" } as JoinedMessage;
    return events.reduce<JobRecord>(
      (record, event, index) =>
        applyEvent(record, { ...stamp, seq: index + 1, ...event } as JobEvent, 9),
      applyJoinedInfo(emptyRecord(), { ...base, ...joined }),
    );
  }

  test("is merged from statuses and info events", () => {
    const { info } = describedBy([
      {
        type: "job_status",
        status: "queued",
        task: "t",
        tags: ["a"],
        queue: "q",
        created_at: sent,
      },
      { type: "job_status", status: "started", worker: "w", tags: ["b"], created_at: "later" },
      { type: "job_info", title: "March report", tags: ["a", "b", "c"] },
    ]);
    expect(info).toEqual({
      ...NO_INFO,
      task: "t",
      title: "March report",
      tags: ["a", "b", "c"],
      queue: "q",
      worker: "w",
      createdAt: sent,
    });
  });

  test("is that of the joined, whatever the history before it says", () => {
    const joined = { seq: 2, title: "new", tags: ["a"], parent: "p", owner: "alice" };
    const history = { type: "job_status", status: "started", title: "old", worker: "w" };
    const known = { ...NO_INFO, title: "new", tags: ["a"], parent: "p", owner: "alice" };
    expect(describedBy([history, history], joined).info).toEqual(known);
    expect(describedBy([history, history, history], joined).info).toEqual({
      ...known,
      title: "old",
      worker: "w",
    });
  });

  test("of another run begins anew, but its owner stays", () => {
    const end = { type: "job_complete", result: null };
    const record = describedBy(
      [
        { type: "job_info", title: "first", tags: ["a"] },
        { type: "job_status", status: "started", worker: "w" },
        end,
        { type: "job_status", status: "queued", tags: ["b"] },
      ],
      { owner: "alice" },
    );
    expect(record.info).toEqual({ ...NO_INFO, tags: ["b"], owner: "alice" });
    expect(eventsToReplay(record).some(({ type }) => type === "job_info")).toBe(false);
  });

  test("has at most ten tags, and the same array while they are the same", () => {
    const tags = Array.from({ length: 10 }, (_, n) => `tag ${n}`);
    const record = describedBy([{ type: "job_info", tags }]);
    const more = { ...stamp, type: "job_info", seq: 9, tags: ["tag 3", "one more"] } as JobEvent;
    expect(applyEvent(record, more, 9).info.tags).toEqual(tags);
    const same = { ...stamp, type: "job_info", seq: 9, tags: ["tag 3"] } as JobEvent;
    expect(applyEvent(record, same, 9).info.tags).toBe(record.info.tags);
  });

  test("is replayed to a late follower as one event", () => {
    const record = describedBy([
      { type: "job_status", status: "started" },
      { type: "job_info", title: "one" },
      { type: "job_info", title: "two" },
    ]);
    expect(eventsToReplay(record).map(({ type }) => type)).toEqual(["job_status", "job_info"]);
  });
});
