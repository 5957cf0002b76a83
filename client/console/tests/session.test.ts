import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type SessionModule = typeof import("../src/demo/demoSession");

let page: SessionModule;
const requests: string[] = [];

/** Simulate the server: a status and a body for each `METHOD path`. */
function serve(answers: Record<string, readonly [status: number, body: unknown]>): void {
  vi.stubGlobal("fetch", async (path: string, { method }: { method: string }) => {
    requests.push(`${method} ${path}`);
    const [status, body] = answers[`${method} ${path}`] ?? [404, null];
    return new Response(JSON.stringify(body), { status });
  });
}

const sessionOf = (user: string | null) => ({ "GET /api/session": [200, { user }] }) as const;
const state = () => page.session.state.getSnapshot();
const signedIn = { state: "signed_in", access: { user: "ada", url: "http://127.0.0.1:8000/" } };

beforeEach(async () => {
  requests.length = 0;
  vi.resetModules();
  vi.stubGlobal(
    "window",
    Object.assign(new EventTarget(), { location: { href: "http://127.0.0.1:8000/#/" } }),
  );
  vi.stubGlobal("BroadcastChannel", undefined);
  page = await import("../src/demo/demoSession");
});

afterEach(() => vi.unstubAllGlobals());

const getToken = (): unknown => {
  const now = state();
  return now.state === "signed_in" ? now.access.getToken?.() : null;
};

describe("the session with the demo", () => {
  it("is requested even in a browser without a cookie", async () => {
    serve(sessionOf("ada"));
    page.session.start();
    expect(requests).toEqual(["GET /api/session"]);
    await vi.waitFor(() => expect(state()).toMatchObject(signedIn));
  });

  it("without a user is signed out", async () => {
    serve(sessionOf(null));
    await page.session.load();
    expect(state()).toEqual({ state: "signed_out", expired: false, user: null, reason: null });
  });

  it("becomes signed out and expired when a token request is rejected with 401", async () => {
    serve({
      ...sessionOf("ada"),
      "POST /api/token": [401, { code: "signed_out", message: "not signed in" }],
    });
    await page.session.load();
    await expect(getToken()).rejects.toThrow("not signed in");
    expect(state()).toEqual({ state: "signed_out", expired: true, user: "ada", reason: null });
    serve(sessionOf("ada"));
    await page.session.load();
    expect(state()).toMatchObject(signedIn);
  });

  it("continues when a token request fails for another reason", async () => {
    serve({ ...sessionOf("ada"), "POST /api/token": [503, { code: "busy", message: "not now" }] });
    await page.session.load();
    await expect(getToken()).rejects.toThrow("not now");
    expect(state()).toMatchObject(signedIn);
    expect(requests).toEqual(["GET /api/session", "POST /api/token"]);
  });

  it("starts and ends with the demo's sign-in and sign-out", async () => {
    serve({
      ...sessionOf(null),
      "POST /api/session": [200, { user: "ada" }],
      "DELETE /api/session": [200, null],
    });
    await page.session.load();
    await page.signIn("ada");
    const now = state();
    expect(now).toMatchObject(signedIn);
    await (now.state === "signed_in" && now.access.signOut?.());
    page.session.end();
    expect(state()).toMatchObject({ state: "signed_out", expired: false, user: "ada" });
  });

  it("is unreachable after an invalid answer", async () => {
    serve({ "GET /api/session": [200, "a page"] });
    await page.session.load();
    expect(state()).toMatchObject({ state: "unreachable" });
  });
});
