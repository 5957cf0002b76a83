import { expect, test, vi } from "vitest";
import { EndReporter } from "../src/endings.js";
import { followedJob } from "../src/followedJob.js";
import { createFakeJobClient } from "../src/testing.js";

test("a callback that throws for a job that has ended is reported, and the job can be left", () => {
  const reported = vi.spyOn(console, "error").mockImplementation(() => {});
  const error = new Error("the callback is broken");
  const client = createFakeJobClient();
  const { subscribe, getSnapshot } = followedJob(client, "a");
  const leave = subscribe(() => {}); // another component shows the job
  client.fakeJob("a").complete(3);
  const ended = getSnapshot();
  const listeners = new Set<() => void>();
  const store = {
    getSnapshot: () => ended,
    subscribe(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const reporter = new EndReporter(() => ({
    onComplete() {
      throw error;
    },
  }));
  const stop = reporter.observe(store);
  expect(ended.isDone).toBe(true);
  expect(reported).toHaveBeenCalledWith(error);
  stop();
  expect(listeners.size).toBe(0);
  leave();
});
