// @vitest-environment happy-dom
// @vitest-environment-options { "settings": { "fetch": { "disableSameOriginPolicy": true } } }
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Announcements } from "../src/element/announcements.js";
import { LogView } from "../src/element/logView.js";
import { formatDuration, formatPercentage, localeOf } from "../src/element/texts.js";
import { JobElement, type JobElementEvents } from "../src/element.js";
import type { LogLine } from "../src/index.js";
import { StreamServer } from "./streamServer.js";
import { eventually } from "./waiting.js";

let server: StreamServer;

beforeEach(async () => {
  server = await StreamServer.start();
});

afterEach(async () => {
  document.body.replaceChildren();
  await eventually(() => server.openStreams === 0, "the end of the streams");
  await server.stop();
});

/** Add an element for a job of the test server to the page. */
function show(jobId: string, attributes: Record<string, string> = {}): JobElement {
  const element = document.createElement("jobcast-job");
  const all = { "job-id": jobId, "base-url": server.url, token: "token", ...attributes };
  for (const [name, value] of Object.entries(all)) {
    element.setAttribute(name, value);
  }
  document.body.append(element);
  return element;
}

function part(element: JobElement, name: string): HTMLElement {
  const found = element.shadowRoot?.querySelector<HTMLElement>(`[part~="${name}"]`);
  expect(found, name).toBeTruthy();
  return found as HTMLElement;
}

const shows = (element: JobElement, name: string, text: string) =>
  eventually(() => {
    const found = element.shadowRoot?.querySelector<HTMLElement>(`[part~="${name}"]`);
    return found?.hidden === false && found.textContent === text;
  }, `"${text}" in ${name}; it shows "${element.shadowRoot?.textContent}"`);

test("the element shows progress, message, percentage and time left", async () => {
  const element = show("a", { label: "Import" });
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_progress", { percentage: 40.7, message: "reading", eta: 90 });
  await shows(element, "message", "reading");
  expect(part(element, "percentage").textContent).toBe("40%");
  expect(part(element, "time").textContent).toBe("1 min 30 sec left");
  expect(part(element, "fill").style.width).toBe("40.7%");
  const bar = part(element, "bar");
  expect(bar.getAttribute("role")).toBe("progressbar");
  expect(bar.getAttribute("aria-valuenow")).toBe("40");
  expect(bar.getAttribute("aria-label")).toBe("Import");
  expect(element.getAttribute("status")).toBe("started");
  expect(part(element, "log").hidden).toBe(true);
});

test("an unknown percentage has no value", async () => {
  const element = show("a");
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_progress", { percentage: null, message: "counting" });
  await shows(element, "message", "counting");
  expect(part(element, "bar").hasAttribute("aria-valuenow")).toBe(false);
  expect(part(element, "percentage").hidden).toBe(true);
});

test("the element shows the end of a job", async () => {
  const [one, two] = [show("a"), show("b")];
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_complete", { result: 1 });
  server.publish("b", "job_error", { error: "OSError", message: "disk full", reason: "failure" });
  await shows(one, "message", "Done");
  expect(part(one, "percentage").textContent).toBe("100%");
  expect(part(one, "time").textContent).toBe("took 0 sec");
  await shows(two, "error", "disk full");
  expect(part(two, "message").textContent).toBe("Failed");
  expect(part(two, "error").getAttribute("role")).toBe("alert");
  expect(two.getAttribute("status")).toBe("error");
});

test("a cancelled job is shown without an alert", async () => {
  const element = show("a");
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_progress", { percentage: 30 });
  server.publish("a", "job_error", { error: "Revoked", message: "revoked", reason: "revoked" });
  await shows(element, "message", "Cancelled");
  expect(part(element, "error").hidden).toBe(true);
  expect(part(element, "percentage").textContent).toBe("30%");
  expect(element.getAttribute("status")).toBe("cancelled");
});

test("a job with the status of a cancelled one has a neutral bar", async () => {
  const element = show("a");
  server.publish("a", "job_error", { error: "JobCancelled", message: "", reason: "cancelled" });
  await shows(element, "message", "Cancelled");
  expect(part(element, "error").hidden).toBe(true);
  expect(element.getAttribute("status")).toBe("cancelled");
});

test("only a job that runs has a moving bar", async () => {
  const [running, waiting] = [show("a"), show("b")];
  const isMoving = (element: JobElement) => part(element, "bar").classList.contains("unknown");
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("b", "job_status", { status: "started", run: 1 });
  server.publish("b", "job_status", { status: "retrying", run: 1 });
  await shows(running, "message", "Running");
  await shows(waiting, "message", "Waiting for another attempt");
  expect([isMoving(running), isMoving(waiting)]).toEqual([true, false]);
});

test("an element without a job is empty", async () => {
  const element = show("a");
  await shows(element, "message", "Waiting for the job…");
  element.removeAttribute("job-id");
  await eventually(() => server.openStreams === 0, "the end of the stream");
  expect(element.hasAttribute("status")).toBe(false);
  expect(element.shadowRoot?.children).toHaveLength(0);
  element.setAttribute("job-id", "b");
  await shows(element, "message", "Waiting for the job…");
});

test("a status of a later server is shown as it is", async () => {
  const element = show("a");
  server.publish("a", "job_status", { status: "suspended" });
  await shows(element, "message", "suspended");
});

test("refusals are shown in words", async () => {
  server.refuse = ({ token }) => ({ status: token === "token" ? 404 : 401, code: codes(token) });
  const unknown = show("a");
  const expired = show("b", { token: "expired" });
  await shows(unknown, "error", "This job does not exist, or you may not see it.");
  await shows(expired, "error", "refused");
  expect(unknown.getAttribute("status")).toBe("refused");
  expect(part(unknown, "bar").hidden).toBe(true);
  server.refuse = () => undefined;
  unknown.reconnect();
  await eventually(() => unknown.getAttribute("status") === "pending", "a join");
});

const codes = (token: string | null): string =>
  token === "token" ? "job_not_found" : "token_expired";

test("the events of a job are dispatched once each, and bubble", async () => {
  const seen: [string, unknown][] = [];
  const names = ["status", "progress", "log", "end", "refused"] as const;
  const stop = new AbortController();
  for (const name of names) {
    const listener = (event: Event): void => {
      const { detail } = event as CustomEvent<JobElementEvents[`jobcast:${typeof name}`]>;
      seen.push([event.type, "type" in detail ? detail.type : detail.code]);
    };
    document.body.addEventListener(`jobcast:${name}`, listener, { signal: stop.signal });
  }
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_error", { error: "E", message: "lost", reason: "worker_lost" });
  server.publish("a", "job_status", { status: "started", run: 2 });
  const element = show("a");
  await eventually(() => element.state?.joined === "yes", "a join");
  server.publish("a", "job_progress", { percentage: 5 });
  server.publish("a", "job_log", { level: "info", message: "line" });
  server.publish("a", "job_complete", { result: 1 });
  await eventually(() => element.getAttribute("status") === "complete", "the end");
  expect(seen).toEqual([
    ["jobcast:status", "job_status"],
    ["jobcast:status", "job_status"],
    ["jobcast:progress", "job_progress"],
    ["jobcast:log", "job_log"],
    ["jobcast:end", "job_complete"],
  ]);
  server.refuse = () => ({ status: 404, code: "job_not_found" });
  show("b");
  await eventually(() => seen.at(-1)?.[0] === "jobcast:refused", "a refusal");
  expect(seen.at(-1)?.[1]).toBe("job_not_found");
  stop.abort();
});

test("the log shows lines with their level", async () => {
  const element = show("a", { log: "" });
  server.publish("a", "job_log", { level: "info", message: "<b>one</b>" });
  server.publish("a", "job_log", { level: "warning", message: "two" });
  await eventually(
    () => element.shadowRoot?.querySelectorAll("[part~=line]").length === 2,
    "lines",
  );
  const lines = [...(element.shadowRoot?.querySelectorAll("[part~=line]") ?? [])];
  expect(lines.map((line) => line.textContent)).toEqual(["<b>one</b>", "two"]);
  expect(lines[1]?.getAttribute("part")).toBe("line line-warning");
  expect(part(element, "log").getAttribute("tabindex")).toBe("0");
});

test("elements with the same credentials share a stream", async () => {
  const elements = ["a", "b", "c"].map((id) => show(id));
  for (const element of elements) {
    await eventually(() => element.state?.joined === "yes", "a join");
  }
  expect(server.requests.map(({ jobs }) => jobs)).toEqual([["a", "b", "c"]]);
});

test("elements share a stream although each has a CSRF token of its own", async () => {
  const requests: unknown[] = [];
  const answer = { token: "token" };
  const endpoint = createServer((request, response) => {
    requests.push(request.headers["x-csrftoken"]);
    response.writeHead(200, { "Access-Control-Allow-Origin": "*" });
    response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => endpoint.listen(0, "127.0.0.1", resolve));
  const tokenUrl = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/`;
  const elements = ["a", "b"].map((id) => {
    const element = show(id, { "token-url": tokenUrl, "csrf-token": `masked-${id}` });
    element.removeAttribute("token");
    return element;
  });
  for (const element of elements) {
    await eventually(() => element.state?.joined === "yes", "a join");
  }
  expect(server.requests.map(({ jobs }) => jobs)).toEqual([["a", "b"]]);
  expect(requests).toEqual(["masked-b"]);
  endpoint.close();
});

test("another job id follows another job", async () => {
  const element = show("a");
  await eventually(() => element.state?.joined === "yes", "a join");
  server.publish("b", "job_status", { status: "started", run: 1 });
  element.setAttribute("job-id", "b");
  await eventually(() => element.getAttribute("status") === "started", "the other job");
  expect(element.state?.jobId).toBe("b");
  await eventually(() => server.openStreams === 1, "the end of the first stream");
});

test("an element that moves within the page keeps its stream", async () => {
  const element = show("a");
  await eventually(() => element.state?.joined === "yes", "a join");
  const section = document.createElement("section");
  document.body.append(section);
  section.append(element);
  server.publish("a", "job_progress", { percentage: 7 });
  await eventually(() => element.state?.percentage === 7, "progress");
  expect(server.requests).toHaveLength(1);
});

test("a removed element ends its stream", async () => {
  const element = show("a");
  await eventually(() => server.openStreams === 1, "a stream");
  element.remove();
  await eventually(() => server.openStreams === 0, "the end of the stream");
  expect(element.state).toBeNull();
});

test("a function provides the tokens of an element", async () => {
  const element = show("a");
  element.getToken = () => "from a function";
  await eventually(() => element.state?.joined === "yes", "a join");
  expect(server.requests.at(-1)?.token).toBe("from a function");
});

test("without a token cookies authenticate the page", async () => {
  const element = document.createElement("jobcast-job");
  element.setAttribute("job-id", "a");
  element.setAttribute("base-url", server.url);
  document.body.append(element);
  await eventually(() => element.state?.joined === "yes", "a join");
  expect(server.requests[0]?.token).toBeNull();
});

test("the texts can be replaced", async () => {
  const { complete } = JobElement.texts;
  JobElement.texts.complete = "Fertig";
  const element = show("a");
  server.publish("a", "job_complete", { result: 1 });
  await shows(element, "message", "Fertig");
  JobElement.texts.complete = complete;
});

test("screen readers announce changes of the status and every 25 per cent", () => {
  const region = document.createElement("p");
  const announced: string[] = [];
  const announcements = new Announcements(region);
  const announce = (status: string, percentage: number | null, text: string): void => {
    region.textContent = "";
    announcements.announce(status, percentage, text);
    region.textContent && announced.push(region.textContent);
  };
  announce("pending", null, "first");
  announce("started", 0, "running");
  for (let percentage = 1; percentage < 100; percentage += 1) {
    announce("started", percentage, `${percentage}%`);
  }
  announce("complete", 100, "Done");
  expect(announced).toEqual(["running", "25%", "50%", "75%", "Done"]);
});

test("the log view keeps the elements of known lines", () => {
  const container = document.createElement("div");
  const view = new LogView(container);
  const lines = Array.from({ length: 6 }, (_, seq) => lineOf(seq));
  view.render(lines.slice(0, 4));
  const [, , third, fourth] = container.children;
  view.render(lines.slice(2));
  expect([...container.children].map((line) => line.textContent)).toEqual(["2", "3", "4", "5"]);
  expect([container.children[0], container.children[1]]).toEqual([third, fourth]);
  const other = lineOf(9);
  view.render([other]);
  expect([...container.children].map((line) => line.textContent)).toEqual(["9"]);
});

function lineOf(seq: number): LogLine {
  return { seq, timestamp: "2026-01-15T09:30:00Z", level: "info", message: String(seq) };
}

test.each([
  [0, "0 sec"],
  [59.6, "1 min"],
  [3600, "1 hr"],
  [3725, "1 hr 2 min"],
  [-1, "0 sec"],
])("%f seconds are shown as %s", (seconds, text) => {
  expect(formatDuration(seconds, "en")).toBe(text);
});

test("percentages are rounded down, and formatted for the language of the page", () => {
  expect(formatPercentage(99.9, "en")).toBe("99%");
  const element = document.createElement("p");
  document.body.append(element);
  element.lang = "de-DE";
  expect(localeOf(element)).toBe("de-DE");
  element.lang = "not a language";
  expect(localeOf(element)).toBeUndefined();
});

/** Show a running job that the user can cancel. */
async function showCancellable(jobId: string): Promise<JobElement> {
  const element = show(jobId, { cancellable: "" });
  server.publish(jobId, "job_status", { status: "started", run: 1 });
  await shows(element, "message", "Running");
  return element;
}

const click = (element: JobElement, name: string) => part(element, name).click();
const focused = (element: JobElement) =>
  element.shadowRoot?.activeElement?.getAttribute("part") ?? null;

test("the button is shown while a request can cancel the job", async () => {
  const isShown = (element: JobElement) => part(element, "cancel").hidden === false;
  const element = show("a", { cancellable: "" });
  const plain = show("a");
  await shows(element, "message", "Waiting for the job…");
  expect(isShown(element)).toBe(false);
  server.publish("a", "job_status", { status: "queued" });
  await shows(element, "message", "Queued");
  expect([isShown(element), isShown(plain)]).toEqual([true, false]);
  server.publish("a", "job_status", { status: "cancelling", by: "ada" });
  await shows(element, "message", "Cancelling…");
  expect(isShown(element)).toBe(false);
  server.publish("a", "job_error", { error: "E", message: "", reason: "cancelled" });
  await shows(element, "message", "Cancelled");
  expect(isShown(element)).toBe(false);
  const fixed = show("b", { cancellable: "" });
  await eventually(() => fixed.state?.joined === "yes", "the join");
  server.publish("b", "job_status", { status: "started", cancellable: false });
  await shows(fixed, "message", "Running");
  expect(isShown(fixed)).toBe(false);
});

test("the button asks before it cancels the job", async () => {
  const element = await showCancellable("a");
  click(element, "cancel-button");
  expect(part(element, "cancel-confirmation").hidden).toBe(false);
  expect(part(element, "cancel-button").hidden).toBe(true);
  expect(focused(element)).toContain("cancel-no");
  click(element, "cancel-no");
  expect(focused(element)).toContain("cancel-button");
  expect(server.cancelRequests).toEqual([]);
  click(element, "cancel-button");
  click(element, "cancel-yes");
  await eventually(() => server.cancelRequests.length === 1, "the request");
  expect(server.cancelRequests).toEqual([{ jobId: "a", token: "token", body: {} }]);
  expect(part(element, "cancel-confirmation").hidden).toBe(true);
});

test("Escape keeps the job running, and a dialog of the page open", async () => {
  const element = await showCancellable("a");
  const seen: string[] = [];
  document.body.addEventListener("keydown", ({ key }) => seen.push(key), { once: true });
  click(element, "cancel-button");
  const pressed = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, composed: true });
  part(element, "cancel-no").dispatchEvent(pressed);
  expect(part(element, "cancel-confirmation").hidden).toBe(true);
  expect(focused(element)).toContain("cancel-button");
  expect(seen).toEqual([]);
  expect(server.cancelRequests).toEqual([]);
});

test("a refused request is shown, and can be repeated", async () => {
  server.cancel = () => ({ status: 404, code: "job_not_found", detail: "not yours" });
  const element = await showCancellable("a");
  click(element, "cancel-button");
  click(element, "cancel-yes");
  await shows(element, "cancel-problem", "The job could not be cancelled: not yours");
  expect(part(element, "cancel-problem").getAttribute("role")).toBe("alert");
  expect((part(element, "cancel-button") as HTMLButtonElement).disabled).toBe(false);
  click(element, "cancel-button");
  expect(part(element, "cancel-problem").hidden).toBe(true);
});

test("a script can cancel the job of an element without a question", async () => {
  const element = await showCancellable("a/b");
  server.cancel = ({ jobId }) => ({
    ok: true,
    job_id: jobId,
    outcome: "requested",
    terminates: true,
  });
  const result = await element.cancel({ message: "wrong file" });
  expect(result).toEqual({ outcome: "requested", terminates: true });
  expect(server.cancelRequests).toEqual([
    { jobId: "a/b", token: "token", body: { message: "wrong file" } },
  ]);
  await expect(document.createElement("jobcast-job").cancel()).rejects.toMatchObject({
    code: "no_job",
  });
});
