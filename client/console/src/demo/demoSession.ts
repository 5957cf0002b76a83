/** The session with the demo, which all tabs of the browser share. */

import { ApiError } from "../lib/http";
import { type Access, Session } from "../session/session";
import * as api from "./api";

const tabs =
  typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.session");
const [SIGNED_IN, SIGNED_OUT] = ["signed in", "signed out"];

export const session = new Session(async () => {
  const user = await api.getUser();
  return user === null ? null : accessOf(user);
});

tabs?.addEventListener("message", ({ data }) => {
  if (data === SIGNED_OUT) {
    session.end();
  } else {
    void session.load();
  }
});

export async function signIn(name: string): Promise<void> {
  session.begin(accessOf(await api.signIn(name)));
  tabs?.postMessage(SIGNED_IN);
}

async function signOut(): Promise<void> {
  await api.signOut();
  tabs?.postMessage(SIGNED_OUT);
}

function accessOf(user: string): Access {
  return { user, url: new URL("/", window.location.href).href, getToken, signOut };
}

/** Request a token for the connection. The client retries if it fails. */
async function getToken(): Promise<string> {
  try {
    return await api.getToken();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      session.expire();
    }
    throw error;
  }
}
