import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type SessionModule = typeof import("../src/session/session");

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

const sessionOf = (user: string | null, demonstration: boolean) =>
  ({ "GET /api/session": [200, { user, demonstration }] }) as const;
const state = () => page.session.getSnapshot();

beforeEach(async () => {
  requests.length = 0;
  vi.resetModules();
  vi.stubGlobal("window", new EventTarget());
  vi.stubGlobal("BroadcastChannel", undefined);
  page = await import("../src/session/session");
});

afterEach(() => vi.unstubAllGlobals());

describe("the session", () => {
  it("is requested even in a browser without a cookie", async () => {
    serve(sessionOf("ada", false));
    page.startSession();
    expect(requests).toEqual(["GET /api/session"]);
    await vi.waitFor(() =>
      expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: false }),
    );
  });

  it.each([true, false])(
    "without a user is signed out (demonstration: %s)",
    async (demonstration) => {
      serve(sessionOf(null, demonstration));
      await page.loadSession();
      const signedOut = { state: "signed_out", expired: false, user: null, demonstration };
      expect(state()).toEqual(signedOut);
    },
  );

  it("becomes signed out and expired when a token request is rejected with 401", async () => {
    serve({
      ...sessionOf("ada", false),
      "POST /api/token": [401, { code: "signed_out", message: "not signed in" }],
    });
    await page.loadSession();
    await expect(page.getToken()).rejects.toThrow("not signed in");
    const ended = { state: "signed_out", expired: true, user: "ada", demonstration: false };
    expect(state()).toEqual(ended);
    serve(sessionOf("ada", false));
    await page.loadSession();
    expect(state()).toMatchObject({ state: "signed_in", user: "ada" });
  });

  it("continues when a token request fails for another reason", async () => {
    serve({
      ...sessionOf("ada", true),
      "POST /api/token": [503, { code: "busy", message: "not now" }],
    });
    await page.loadSession();
    await expect(page.getToken()).rejects.toThrow("not now");
    expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: true });
    expect(requests).toEqual(["GET /api/session", "POST /api/token"]);
  });

  it("starts and ends with the demonstration's sign-in and sign-out", async () => {
    serve({
      ...sessionOf(null, true),
      "POST /api/session": [200, { user: "ada" }],
      "DELETE /api/session": [200, null],
    });
    await page.loadSession();
    await page.signIn("ada");
    expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: true });
    await page.signOut();
    expect(state()).toMatchObject({ state: "signed_out", expired: false, demonstration: true });
  });

  it("is unreachable after an invalid answer", async () => {
    serve({ "GET /api/session": [200, "a page"] });
    await page.loadSession();
    expect(state()).toMatchObject({ state: "unreachable" });
  });
});
