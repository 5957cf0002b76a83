/** Who uses the page. */

import { messageOf } from "../lib/records";
import { Value } from "../lib/store";
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

export const session = new Value<Session>({ state: "loading" });

const tabs =
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.session");

const [SIGNED_IN, SIGNED_OUT] = ["signed in", "signed out"];

/** Asks who is signed in, now and whenever another tab says that it changed. */
export function startSession(): void {
  tabs?.addEventListener("message", ({ data }) => {
    if (data === SIGNED_OUT) {
      depart();
    } else {
      void look();
    }
  });
  window.addEventListener("online", () => {
    if (session.getSnapshot().state === "unreachable") {
      void look();
    }
  });
  void look();
}

export async function look(): Promise<void> {
  try {
    const { user, demonstration } = await api.getSession();
    if (user === null) {
      leave(demonstration);
    } else {
      enter(user, demonstration);
    }
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      leave(); // something in front of the application says so
    } else if (session.getSnapshot().state !== "signed_in") {
      session.set({ state: "unreachable", message: messageOf(error) });
    }
  }
}

/** The demonstration's. */
export async function signIn(name: string): Promise<void> {
  enter(await api.signIn(name), true);
  tabs?.postMessage(SIGNED_IN);
}

/** The demonstration's. */
export async function signOut(): Promise<void> {
  await api.signOut();
  depart();
  tabs?.postMessage(SIGNED_OUT);
}

/** A token for the connection, which asks again for as long as it takes. */
export async function getToken(): Promise<string> {
  try {
    return await api.getToken();
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      leave();
    }
    throw error;
  }
}

/** The server does not know who this is any more. */
export function leave(demonstration = isDemonstration(session.getSnapshot())): void {
  const before = session.getSnapshot();
  if (before.state !== "signed_out") {
    const expired = before.state === "signed_in";
    session.set({ state: "signed_out", expired, user: userOf(before), demonstration });
  }
}

/** Somebody signed out, here or in another tab. */
function depart(): void {
  const user = userOf(session.getSnapshot());
  session.set({ state: "signed_out", expired: false, user, demonstration: true });
}

function enter(user: string, demonstration: boolean): void {
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
