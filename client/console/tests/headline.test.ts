import type { Reason } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import { announcement } from "../src/lib/announcement";
import { bucketOf, faceOf } from "../src/lib/face";
import { errorText, headlineOf, leftOf } from "../src/lib/headline";
import { titleOf } from "../src/lib/title";
import { at, job, line, START } from "./jobs";

const now = START + 10_000;
const failed = job({
  status: "error",
  percentage: 57.9,
  endedAt: at(43),
  error: { error: "LedgerError", message: "line 4: no", reason: "failure" },
});

describe("the headline", () => {
  it("says what a running job does, how far it is and how long it takes", () => {
    const running = job({
      message: "importing people",
      percentage: 62.7,
      eta: 14,
      updatedAt: at(8),
    });
    expect(headlineOf(running, now).sentence).toBe(
      "Running: importing people, 62%, about 12 s left",
    );
  });

  it("has a long message last, where it hides nothing when it is cut", () => {
    const message = "x".repeat(300);
    expect(headlineOf(job({ message, percentage: 62.7 }), now).sentence).toBe(
      `Running, 62%: ${message}`,
    );
    expect(headlineOf(job({ message }), now).sentence).toBe(`Running: ${message}`);
  });

  it("leaves out what is not known", () => {
    expect(headlineOf(job(), now).sentence).toBe("Running");
    expect(headlineOf(job({ stage: "count" }), now).sentence).toBe("Running: count");
  });

  it("counts down to a retry, and says why there is one", () => {
    const retry = { attempt: 2, eta: at(14.2), error: "FeedBusy", message: "parts to come: 2" };
    const retrying = job({ status: "retrying", retry });
    expect(headlineOf(retrying, now)).toEqual({
      sentence: "Retrying: attempt 2 is due in 5 s",
      hint: "The last attempt ended with FeedBusy: parts to come: 2",
    });
    expect(headlineOf(retrying, now + 9000).sentence).toBe("Retrying: attempt 2 is due now");
  });

  it("says how a job ended, after how long and how far", () => {
    expect(headlineOf(failed, now).sentence).toBe("Failed after 42 s, at 57%");
    expect(headlineOf(failed, now).hint).toBe("The task raised an error.");
    const done = job({ status: "complete", endedAt: at(1.2), attempt: 3 });
    expect(headlineOf(done, now).sentence).toBe("Done in 0.2 s, on attempt 3");
  });

  it("knows that some never began", () => {
    const error = { error: "TaskRevokedError", message: "revoked", reason: "revoked" } as const;
    const revoked = job({ status: "error", run: null, startedAt: null, endedAt: at(2), error });
    expect(headlineOf(revoked, now).sentence).toBe("Revoked before it started");
    const sentAgain = job({ ...revoked, run: 1, logs: [line(3)] });
    expect(headlineOf(sentAgain, now).sentence).toBe("Revoked before it started");
  });

  it("doesn't take for never begun what has lost its beginning", () => {
    const cut = { run: null, startedAt: null, queuedAt: null, percentage: null };
    const logs = [line(1200), line(1201)];
    expect(headlineOf(job({ ...failed, ...cut, logs }), now).sentence).toBe("Failed");
    expect(headlineOf(job({ ...failed, ...cut, percentage: 57.9 }), now).sentence).toBe(
      "Failed, at 57%",
    );
    const holed = job({ ...failed, ...cut, queuedAt: at(0), gaps: [1], logs });
    expect(headlineOf(holed, now).sentence).toBe("Failed");
    expect(
      headlineOf(job({ ...cut, status: "complete", endedAt: at(9), logs }), now).sentence,
    ).toBe("Done");
  });

  it.each<Reason>(["failure", "revoked", "time_limit", "worker_lost", "expired", "rejected"])(
    "has words and advice for the reason %s",
    (reason) => {
      const ended = job({
        status: "error",
        endedAt: at(2),
        error: { error: "E", message: "m", reason },
      });
      const { sentence, hint, advice } = headlineOf(ended, now);
      expect(sentence).toMatch(/^[A-Z][a-z ]+ after 1\.0 s$/);
      expect(hint).toMatch(/\.$/);
      expect(advice).toMatch(/\.$/);
      expect(faceOf(ended).word).not.toBe("");
    },
  );

  it("waits with an explanation", () => {
    const queued = job({ status: "queued", startedAt: null });
    expect(headlineOf(queued, START + 500).sentence).toBe("Queued");
    expect(headlineOf(queued, now + 5000).hint).toMatch(/No worker has taken it yet/);
    expect(headlineOf(job({ status: "stalled" }), now).sentence).toMatch(/not heard of any more/);
  });

  it("gives one answer for a job that is not there and one that is another's", () => {
    const refusal = { code: "job_not_found", message: "no such job" };
    const refused = job({ joined: "refused", refusal, status: "pending", updatedAt: null });
    expect(headlineOf(refused, now).sentence).toBe("There is no such job for you");
    expect([faceOf(refused).word, bucketOf(refused)]).toEqual(["Not available", "none"]);
  });

  it("names the error once", () => {
    expect(errorText("KeyError", "KeyError: 'a'")).toBe("KeyError: 'a'");
    expect(errorText("KeyError", "")).toBe("KeyError");
    expect(errorText(null, null)).toBeNull();
  });

  it("takes the time that has gone by off what is left, to nothing", () => {
    expect(leftOf(job({ eta: 5, updatedAt: at(8) }), now)).toBe(3);
    expect(leftOf(job({ eta: 1, updatedAt: at(8) }), now)).toBe(0);
    expect(leftOf(failed, now)).toBeNull();
  });
});

describe("the title", () => {
  it("says state and percentage", () => {
    expect(titleOf(job({ percentage: 62.9 }), "Import")).toBe("62% Running: Import · jobcast");
    expect(titleOf(failed, "Audit")).toBe("Failed: Audit · jobcast");
    expect(titleOf(null, "")).toBe("jobcast");
  });
});

describe("what a screen reader is told", () => {
  it("is each quarter once, and nothing between", () => {
    const percentages = [0, 10, 24.9, 25, 26, 51, 60, 76, 99, 100];
    const said = percentages
      .slice(1)
      .map((percentage, index) =>
        announcement(job({ percentage: percentages[index] ?? 0 }), job({ percentage }), now),
      );
    expect(said.filter((text) => text !== null)).toEqual(["25%", "50%", "75%"]);
  });

  it("is a change of the state, with the error", () => {
    expect(announcement(job(), failed, now)).toBe(
      "Failed after 42 s, at 57%: LedgerError: line 4: no",
    );
  });

  it("is nothing of what was there when the page was opened", () => {
    const unknown = job({ joined: "joining", status: "pending", updatedAt: null });
    expect(announcement(unknown, failed, now)).toBeNull();
    expect(announcement(job(), job({ joined: "no" }), now)).toBeNull();
  });
});
