// @vitest-environment happy-dom
/** The plot of a job's progress, as the page draws it. */

import type { JobState } from "@jobcast/client";
import { createFakeJobClient } from "@jobcast/client/testing";
import { cleanup, render } from "@testing-library/react";
import { createElement } from "react";
import { afterEach, expect, it, vi } from "vitest";
import { Plot } from "../src/job/Plot";
import { ProgressHistory, ProgressHistoryContext } from "../src/job/progressHistory";
import { change, job } from "./factories";

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

/** Return the tone of the curve of a job that has reported progress. */
async function toneOf(state: JobState): Promise<string | undefined> {
  vi.spyOn(HTMLElement.prototype, "clientWidth", "get").mockReturnValue(600);
  const client = createFakeJobClient();
  const history = new ProgressHistory(client);
  history.follow([state.jobId]);
  client.fakeJob(state.jobId).status("started").progress(50);
  await Promise.resolve(); // followers receive the first events in a microtask
  const plot = createElement(Plot, { job: state });
  const { container } = render(createElement(ProgressHistoryContext, { value: history }, plot));
  return container.querySelector<HTMLElement>(".curve")?.dataset.tone;
}

const cancellation = { by: "ada", message: "wrong file", reason: "cancelled" } as const;
const failure = { error: "ValueError", message: "line 4", reason: "failure" } as const;

it.each<[string, Partial<JobState>]>([
  ["active", { status: "started" }],
  ["active", { status: "cancelling" }],
  ["warn", { status: "stalled" }],
  ["good", { status: "complete" }],
  ["bad", { status: "error", error: failure }],
  ["quiet", { status: "cancelled", cancellation }],
  ["quiet", { status: "cancelled", cancellation: { ...cancellation, reason: "revoked" } }],
])("has the tone %s, which is that of the job's badge, for %o", async (tone, values) => {
  expect(await toneOf(job({ history: [change(1)], ...values }))).toBe(tone);
});
