import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type SessionModule = typeof import("../src/session/session");

let page: SessionModule;
const asked: string[] = [];

/** Plays the server: an answer for `METHOD path`, with its status. */
function serve(answers: Record<string, readonly [status: number, body: unknown]>): void {
  vi.stubGlobal("fetch", async (path: string, { method }: { method: string }) => {
    asked.push(`${method} ${path}`);
    const [status, body] = answers[`${method} ${path}`] ?? [404, null];
    return new Response(JSON.stringify(body), { status });
  });
}

const who = (user: string | null, demonstration: boolean) =>
  ({ "GET /api/session": [200, { user, demonstration }] }) as const;
const state = () => page.session.getSnapshot();

beforeEach(async () => {
  asked.length = 0;
  vi.resetModules();
  vi.stubGlobal("window", new EventTarget());
  vi.stubGlobal("BroadcastChannel", undefined);
  page = await import("../src/session/session");
});

afterEach(() => vi.unstubAllGlobals());

describe("the session", () => {
  it("is always asked for, also in a browser that was never here", async () => {
    serve(who("ada", false));
    page.startSession();
    expect(asked).toEqual(["GET /api/session"]);
    await vi.waitFor(() =>
      expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: false }),
    );
  });

  it.each([true, false])(
    "of nobody is known as such (demonstration: %s)",
    async (demonstration) => {
      serve(who(null, demonstration));
      await page.look();
      const nobody = { state: "signed_out", expired: false, user: null, demonstration };
      expect(state()).toEqual(nobody);
    },
  );

  it("that ends leaves the token unknown, and the page as one that is signed out", async () => {
    serve({
      ...who("ada", false),
      "POST /api/token": [401, { code: "signed_out", message: "who?" }],
    });
    await page.look();
    await expect(page.getToken()).rejects.toThrow("who?");
    const ended = { state: "signed_out", expired: true, user: "ada", demonstration: false };
    expect(state()).toEqual(ended);
    serve(who("ada", false));
    await page.look();
    expect(state()).toMatchObject({ state: "signed_in", user: "ada" });
  });

  it("goes on while there is no token for another reason", async () => {
    serve({ ...who("ada", true), "POST /api/token": [503, { code: "busy", message: "not now" }] });
    await page.look();
    await expect(page.getToken()).rejects.toThrow("not now");
    expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: true });
    expect(asked).toEqual(["GET /api/session", "POST /api/token"]);
  });

  it("begins and ends with the demonstration's sign-in", async () => {
    serve({
      ...who(null, true),
      "POST /api/session": [200, { user: "ada" }],
      "DELETE /api/session": [200, null],
    });
    await page.look();
    await page.signIn("ada");
    expect(state()).toEqual({ state: "signed_in", user: "ada", demonstration: true });
    await page.signOut();
    expect(state()).toMatchObject({ state: "signed_out", expired: false, demonstration: true });
  });

  it("that cannot be asked for is neither", async () => {
    serve({ "GET /api/session": [200, "a page"] });
    await page.look();
    expect(state()).toMatchObject({ state: "unreachable" });
  });
});
