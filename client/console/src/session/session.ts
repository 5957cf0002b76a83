/** Who uses the page. */

import { messageOf } from "../lib/records";
import { recall, remember } from "../lib/storage";
import { Value } from "../lib/store";
import * as api from "./api";

export type Session =
  | { readonly state: "loading" }
  | { readonly state: "unreachable"; readonly message: string }
  | { readonly state: "signed_out"; readonly expired: boolean; readonly user: string | null }
  | { readonly state: "signed_in"; readonly user: string };

export const session = new Value<Session>({ state: "loading" });

const tabs =
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.session");

const [SIGNED_IN, SIGNED_OUT] = ["signed in", "signed out"];
const KEY = "jobcast.user"; // who signed in here last, while they did not sign out
const RETRIES = 5; // of a token that cannot be had, before the page says so
const FIRST_PAUSE = 400; // ms, and twice as long each time

/** Asks who is signed in, now and whenever another tab says that it changed. */
export function startSession(): void {
  tabs?.addEventListener("message", ({ data }) => {
    if (data === SIGNED_OUT) {
      session.set({ state: "signed_out", expired: false, user: userOf(session.getSnapshot()) });
    } else {
      void look();
    }
  });
  window.addEventListener("online", () => {
    if (session.getSnapshot().state === "unreachable") {
      void look();
    }
  });
  // Who never signed in here needs no server to be told so.
  if (recall(KEY) === null) {
    leave();
  } else {
    void look();
  }
}

export async function look(): Promise<void> {
  try {
    enter(await api.getUser());
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      leave();
    } else if (session.getSnapshot().state !== "signed_in") {
      session.set({ state: "unreachable", message: messageOf(error) });
    }
  }
}

export async function signIn(name: string): Promise<void> {
  enter(await api.signIn(name));
  tabs?.postMessage(SIGNED_IN);
}

export async function signOut(): Promise<void> {
  await api.signOut();
  remember(KEY, null);
  session.set({ state: "signed_out", expired: false, user: userOf(session.getSnapshot()) });
  tabs?.postMessage(SIGNED_OUT);
}

/** A token for the connection. An unreachable server is asked again for a while. */
export async function getToken(): Promise<string> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await api.getToken();
    } catch (error) {
      if (error instanceof api.ApiError && error.status === 401) {
        leave();
        throw error;
      }
      if (tries === RETRIES) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE * 2 ** tries));
    }
  }
}

/** The server does not know who this is any more. */
export function leave(): void {
  const before = session.getSnapshot();
  if (before.state !== "signed_out") {
    session.set({
      state: "signed_out",
      expired: before.state === "signed_in",
      user: userOf(before),
    });
  }
}

function enter(user: string): void {
  remember(KEY, user);
  if (userOf(session.getSnapshot()) !== user || session.getSnapshot().state !== "signed_in") {
    session.set({ state: "signed_in", user });
  }
}

function userOf(session: Session): string | null {
  return session.state === "signed_in" || session.state === "signed_out" ? session.user : null;
}
