/** The user's session. */

import { WritableStore } from "../lib/store";
import { errorMessage } from "../lib/untrusted";
import * as api from "./api";

export type Session =
  | { readonly state: "loading" }
  | { readonly state: "unreachable"; readonly message: string }
  | {
      readonly state: "signed_out";
      readonly expired: boolean;
      readonly user: string | null;
      readonly demonstration: boolean;
    }
  | { readonly state: "signed_in"; readonly user: string; readonly demonstration: boolean };

export const session = new WritableStore<Session>({ state: "loading" });

const tabs =
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.session");

const [SIGNED_IN, SIGNED_OUT] = ["signed in", "signed out"];

/** Load the session now, and again when another tab changes it. */
export function startSession(): void {
  tabs?.addEventListener("message", ({ data }) => {
    if (data === SIGNED_OUT) {
      endSession();
    } else {
      void loadSession();
    }
  });
  window.addEventListener("online", () => {
    if (session.getSnapshot().state === "unreachable") {
      void loadSession();
    }
  });
  void loadSession();
}

/** Ask the server for the signed-in user. */
export async function loadSession(): Promise<void> {
  try {
    const { user, demonstration } = await api.getSession();
    if (user === null) {
      expireSession(demonstration);
    } else {
      beginSession(user, demonstration);
    }
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      expireSession(); // an authenticating proxy answered
    } else if (session.getSnapshot().state !== "signed_in") {
      session.set({ state: "unreachable", message: errorMessage(error) });
    }
  }
}

/** Sign in to the demonstration. */
export async function signIn(name: string): Promise<void> {
  beginSession(await api.signIn(name), true);
  tabs?.postMessage(SIGNED_IN);
}

/** Sign out of the demonstration. */
export async function signOut(): Promise<void> {
  await api.signOut();
  endSession();
  tabs?.postMessage(SIGNED_OUT);
}

/** Request a token for the connection. The client retries if it fails. */
export async function getToken(): Promise<string> {
  try {
    return await api.getToken();
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      expireSession();
    }
    throw error;
  }
}

/** The server no longer accepts the session. */
export function expireSession(demonstration = isDemonstration(session.getSnapshot())): void {
  const before = session.getSnapshot();
  if (before.state !== "signed_out") {
    const expired = before.state === "signed_in";
    session.set({ state: "signed_out", expired, user: userOf(before), demonstration });
  }
}

/** The user signed out, here or in another tab. */
function endSession(): void {
  const user = userOf(session.getSnapshot());
  session.set({ state: "signed_out", expired: false, user, demonstration: true });
}

function beginSession(user: string, demonstration: boolean): void {
  if (userOf(session.getSnapshot()) !== user || session.getSnapshot().state !== "signed_in") {
    session.set({ state: "signed_in", user, demonstration });
  }
}

function userOf(session: Session): string | null {
  return session.state === "signed_in" || session.state === "signed_out" ? session.user : null;
}

function isDemonstration(session: Session): boolean {
  return "demonstration" in session && session.demonstration;
}
