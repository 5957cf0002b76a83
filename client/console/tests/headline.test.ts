import type { Reason } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import { announcement } from "../src/lib/announcement";
import { errorText, headline, remainingSeconds } from "../src/lib/headline";
import { pageTitle } from "../src/lib/pageTitle";
import { statusBadge } from "../src/lib/statusBadge";
import { at, change, gap, job, line, START } from "./factories";

const now = START + 10_000;
const failed = job({
  status: "error",
  percentage: 57.9,
  endedAt: at(43),
  error: { error: "LedgerError", message: "line 4: no", reason: "failure" },
});

describe("the headline", () => {
  it("shows the activity, the percentage and the remaining time of a running job", () => {
    const running = job({
      message: "importing people",
      percentage: 62.7,
      eta: 14,
      updatedAt: at(8),
    });
    expect(headline(running, now).sentence).toBe("Running: importing people, 62%, about 12 s left");
  });

  it("puts a long message last, where truncation hides nothing else", () => {
    const message = "x".repeat(300);
    expect(headline(job({ message, percentage: 62.7 }), now).sentence).toBe(
      `Running, 62%: ${message}`,
    );
    expect(headline(job({ message }), now).sentence).toBe(`Running: ${message}`);
  });

  it("omits unknown values", () => {
    expect(headline(job(), now).sentence).toBe("Running");
    expect(headline(job({ stage: "count" }), now).sentence).toBe("Running: count");
  });

  it("counts down to a retry and shows its cause", () => {
    const retry = { attempt: 2, retryAt: at(14.2), error: "FeedBusy", message: "parts to come: 2" };
    const retrying = job({ status: "retrying", retry });
    expect(headline(retrying, now)).toEqual({
      sentence: "Retrying: attempt 2 starts in 5 s",
      hint: "The last attempt failed: FeedBusy: parts to come: 2",
    });
    expect(headline(retrying, now + 9000).sentence).toBe("Retrying: attempt 2 starts now");
    expect(headline(retrying, now - 24 * 3600_000).sentence).toBe(
      "Retrying: attempt 2 starts in 1 d",
    );
  });

  it("shows how a job ended, its duration and its last percentage", () => {
    expect(headline(failed, now).sentence).toBe("Failed after 42 s, at 57%");
    expect(headline(failed, now).hint).toBe("The task raised an error.");
    const done = job({ status: "complete", endedAt: at(1.2), attempt: 3 });
    expect(headline(done, now).sentence).toBe("Done in 0.2 s, on attempt 3");
  });

  it("shows that a job ended before it started", () => {
    const error = { error: "TaskRejected", message: "no", reason: "rejected" } as const;
    const rejected = job({ status: "error", run: null, startedAt: null, endedAt: at(2), error });
    expect(headline(rejected, now).sentence).toBe("Rejected before it started");
    const sentAgain = job({ ...rejected, run: 1, logs: [line(3)] });
    expect(headline(sentAgain, now).sentence).toBe("Rejected before it started");
  });

  it("shows who cancels a job, why, and how it will end", () => {
    const cancellation = { by: "ada", message: "wrong file", reason: null };
    const asked = job({ status: "cancelling", cancellation, terminates: true });
    expect(headline(asked, now)).toEqual({
      sentence: "Cancelling, requested by ada",
      hint: "Reason: wrong file. The worker terminates the run if it does not end by itself.",
    });
    expect(statusBadge(asked)).toEqual({ label: "Cancelling", tone: "active", icon: "stop" });
    const byApplication = job({ ...asked, cancellation: null, terminates: false });
    expect(headline(byApplication, now)).toEqual({
      sentence: "Cancelling",
      hint: "The run ends where its task checks for the request.",
    });
  });

  it("shows who cancelled a job, and not as a failure", () => {
    const cancellation = { by: "ada", message: "wrong file", reason: "cancelled" } as const;
    const ended = job({ status: "cancelled", percentage: 57.9, endedAt: at(43), cancellation });
    expect(headline(ended, now)).toEqual({
      sentence: "Cancelled by ada after 42 s, at 57%",
      hint: "Reason: wrong file",
    });
    expect(statusBadge(ended)).toEqual({ label: "Cancelled", tone: "quiet", icon: "stop" });
    expect(announcement(job(), ended, now)).toBe("Cancelled by ada after 42 s, at 57%");
    const early = { by: null, message: "Cancelled", reason: "cancelled" };
    const queued = { run: null, startedAt: null, percentage: null, cancellation: early };
    expect(headline(job({ ...ended, ...queued }), now)).toEqual({
      sentence: "Cancelled before it started",
      hint: "The job was cancelled on request.",
    });
    const revoked = { by: null, message: "revoked", reason: "revoked" };
    expect(statusBadge(job({ ...ended, cancellation: revoked })).label).toBe("Revoked");
  });

  it("does not conclude from a truncated history that a job never started", () => {
    const cut = { run: null, startedAt: null, queuedAt: null, percentage: null };
    const logs = [line(1200), line(1201)];
    expect(headline(job({ ...failed, ...cut, logs }), now).sentence).toBe("Failed");
    expect(headline(job({ ...failed, ...cut, percentage: 57.9 }), now).sentence).toBe(
      "Failed, at 57%",
    );
    expect(headline(job({ ...cut, status: "complete", endedAt: at(9), logs }), now).sentence).toBe(
      "Done",
    );
  });

  it("is complete for a client that joins a long log late", () => {
    const long = { logs: [line(1200), line(1201)], gaps: [gap(0, 1200)] };
    expect(headline(job({ ...failed, ...long }), now).sentence).toBe("Failed after 42 s, at 57%");
    const unstarted = { run: null, startedAt: null, queuedAt: at(0), percentage: null };
    expect(headline(job({ ...failed, ...long, ...unstarted }), now).sentence).toBe(
      "Failed before it started",
    );
  });

  it.each([
    ["connecting", "Loading…", "Loading"],
    ["reconnecting", "The page is not connected to the server", "Not connected"],
    ["refused", "The server refused the connection", "Not connected"],
  ] as const)("tells whether an unknown job is on its way while %s", (connection, text, label) => {
    const unknown = job({ status: "pending", joined: "no", updatedAt: null, connection });
    expect(headline(unknown, now).sentence).toBe(text);
    expect(pageTitle(unknown, "Import")).toBe(`${label}: Import · jobcast`);
  });

  it.each([
    ["paused", "Paused"],
    ["waiting_for_parent", "Waiting for parent"],
    ["constructor", "Constructor"],
  ])("shows the unknown status %s as it is", (status, label) => {
    const history = [change(1, { run: 1 }), change(2, { status, message: "ada asked for it" })];
    const state = job({ status, history });
    expect(headline(state, now)).toEqual({ sentence: label, hint: "ada asked for it" });
    expect(headline(job({ status }), now).hint).toBeNull();
    expect(statusBadge(state)).toEqual({ label, tone: "quiet", icon: "dots" });
    expect(pageTitle(state, "Import")).toBe(`${label}: Import · jobcast`);
    expect(announcement(job(), state, now)).toBe(label);
  });

  it.each([
    ["cancelling", { label: "Cancelling", tone: "active", icon: "stop" }],
    ["cancelled", { label: "Cancelled", tone: "quiet", icon: "stop" }],
  ])("does not show the status %s as a failure", (status, badge) => {
    expect(statusBadge(job({ status }))).toEqual(badge);
  });

  it.each([
    ["abandoned", "Abandoned"],
    ["out_of_quota", "Out of quota"],
    ["toString", "ToString"],
  ])("shows the unknown reason %s as it is: the job has ended", (reason, label) => {
    const error = { error: "E", message: "m", reason };
    const ended = job({ status: "error", endedAt: at(2), error });
    expect(headline(ended, now)).toEqual({
      sentence: `${label} after 1.0 s`,
      hint: `The job ended with the reason “${reason}”.`,
    });
    expect(statusBadge(ended)).toEqual({ label, tone: "bad", icon: "cross" });
  });

  it.each<Reason>(["failure", "time_limit", "worker_lost", "expired", "rejected"])(
    "has a text and advice for the reason %s",
    (reason) => {
      const ended = job({
        status: "error",
        endedAt: at(2),
        error: { error: "E", message: "m", reason },
      });
      const { sentence, hint, advice } = headline(ended, now);
      expect(sentence).toMatch(/^[A-Z][a-z ]+ after 1\.0 s$/);
      expect(hint).toMatch(/\.$/);
      expect(advice).toMatch(/\.$/);
      expect(statusBadge(ended).label).not.toBe("");
    },
  );

  it("explains why a job waits", () => {
    const queued = job({ status: "queued", startedAt: null });
    expect(headline(queued, START + 500).sentence).toBe("Queued");
    expect(headline(queued, now + 5000).hint).toMatch(/No worker has taken the job yet/);
    expect(headline(job({ status: "stalled" }), now).sentence).toMatch(
      /the worker stopped reporting/,
    );
  });

  it("does not distinguish a missing job from another user's job", () => {
    const refusal = { code: "job_not_found", message: "no such job" };
    const refused = job({ joined: "refused", refusal, status: "pending", updatedAt: null });
    expect(headline(refused, now).sentence).toBe("Job not found");
    expect(statusBadge(refused).label).toBe("Not available");
  });

  it("does not repeat the class name of an error", () => {
    expect(errorText("KeyError", "KeyError: 'a'")).toBe("KeyError: 'a'");
    expect(errorText("KeyError", "")).toBe("KeyError");
    expect(errorText(null, null)).toBeNull();
  });

  it("reduces the remaining time by the elapsed time, down to 0", () => {
    expect(remainingSeconds(job({ eta: 5, updatedAt: at(8) }), now)).toBe(3);
    expect(remainingSeconds(job({ eta: 1, updatedAt: at(8) }), now)).toBe(0);
    expect(remainingSeconds(failed, now)).toBeNull();
  });
});

describe("the page title", () => {
  it("shows the status and the percentage", () => {
    expect(pageTitle(job({ percentage: 62.9 }), "Import")).toBe("62% Running: Import · jobcast");
    expect(pageTitle(failed, "Audit")).toBe("Failed: Audit · jobcast");
    expect(pageTitle(null, "")).toBe("jobcast");
  });
});

describe("the announcement", () => {
  it("is each quarter of progress once, and nothing in between", () => {
    const percentages = [0, 10, 24.9, 25, 26, 51, 60, 76, 99, 100];
    const announced = percentages
      .slice(1)
      .map((percentage, index) =>
        announcement(job({ percentage: percentages[index] ?? 0 }), job({ percentage }), now),
      );
    expect(announced.filter((text) => text !== null)).toEqual(["25%", "50%", "75%"]);
  });

  it("is a status change with its error", () => {
    expect(announcement(job(), failed, now)).toBe(
      "Failed after 42 s, at 57%: LedgerError: line 4: no",
    );
  });

  it("is empty for the state that the page was opened with", () => {
    const unknown = job({ joined: "joining", status: "pending", updatedAt: null });
    expect(announcement(unknown, failed, now)).toBeNull();
    expect(announcement(job(), job({ joined: "no" }), now)).toBeNull();
  });
});
