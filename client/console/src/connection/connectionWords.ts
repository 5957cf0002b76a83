/** How the connection stands, in words. */

import type { Connection, Store } from "@jobcast/client";
import { plural } from "../lib/numbers";
import { useStore } from "../lib/useStore";

export interface Link {
  readonly state: Connection["state"] | "offline";
  /** A word or two. */
  readonly short: string;
  /** What is worth a banner; null while all is well. */
  readonly problem: { readonly title: string; readonly text: string } | null;
}

const BEHIND = "What you see may be behind. Your jobs go on, and this page catches up by itself.";

export function connectionWords(connection: Connection, online: boolean): Link {
  const { state, code, message, attempts } = connection;
  if (!online && state !== "connected" && state !== "idle") {
    return {
      state: "offline",
      short: "Offline",
      problem: { title: "You are offline.", text: BEHIND },
    };
  }
  switch (state) {
    case "idle":
      return { state, short: "Ready", problem: null };
    case "connecting":
      return { state, short: "Connecting…", problem: null };
    case "connected":
      return { state, short: "Live", problem: null };
    case "reconnecting": {
      const tried = attempts > 0 ? ` Tried ${plural(attempts, "time")} so far.` : "";
      const problem =
        code === "token_unavailable"
          ? {
              title: "The server gives no access at the moment.",
              text: `${saying(message)}${BEHIND}`,
            }
          : { title: "The connection was lost: reconnecting.", text: BEHIND };
      return {
        state,
        short: attempts > 0 ? `Reconnecting (${attempts})` : "Reconnecting",
        problem: { ...problem, text: `${problem.text}${tried}` },
      };
    }
    case "refused":
      return {
        state,
        short: "Refused",
        problem: {
          title:
            code === "token_expired"
              ? "The sign-in has expired."
              : "The server refused the connection.",
          text: `${saying(message)}Try again, or sign in anew. What you see is as of when the connection ended.`,
        },
      };
    case "closed":
      return { state, short: "Closed", problem: null };
  }
}

function saying(message: string | null): string {
  return message ? `It says: ${message}${/[.!?]$/.test(message) ? "" : "."} ` : "";
}

const online: Store<boolean> = {
  subscribe(listener) {
    window.addEventListener("online", listener);
    window.addEventListener("offline", listener);
    return () => {
      window.removeEventListener("online", listener);
      window.removeEventListener("offline", listener);
    };
  },
  getSnapshot: () => navigator.onLine,
};

/** Whether the browser thinks that there is a network. */
export function useOnline(): boolean {
  return useStore(online);
}
