/** Texts for the state of the connection. */

import type { Connection, Store } from "@jobcast/client";
import { pluralize, upperFirst } from "../lib/formatNumber";
import { useStore } from "../lib/useStore";

export interface ConnectionStatus {
  readonly state: Connection["state"] | "offline";
  /** One or two words. */
  readonly label: string;
  /** The number of attempts since the connection was lost; 0 if it is not. */
  readonly attempts: number;
  /** The text of the banner; null if there is no problem. */
  readonly problem: { readonly title: string; readonly text: string } | null;
}

const STALE =
  "This page may be out of date. Your jobs keep running, and the page updates when the connection is back.";

export function connectionText(connection: Connection, online: boolean): ConnectionStatus {
  const { state, code, message, attempts } = connection;
  if (!online && state !== "connected" && state !== "idle") {
    return {
      state: "offline",
      label: "Offline",
      attempts: 0,
      problem: { title: "You are offline.", text: STALE },
    };
  }
  switch (state) {
    case "idle":
      return { state, label: "Ready", attempts: 0, problem: null };
    case "connecting":
      return { state, label: "Connecting…", attempts: 0, problem: null };
    case "connected":
      return { state, label: "Live", attempts: 0, problem: null };
    case "reconnecting": {
      const attempted = attempts > 0 ? ` ${pluralize(attempts, "attempt")} so far.` : "";
      const { title, text } = interruption(code, message);
      return {
        state,
        label: "Reconnecting",
        attempts,
        problem: { title, text: `${text}${attempted}` },
      };
    }
    case "refused":
      return {
        state,
        label: "Refused",
        attempts: 0,
        problem:
          code === "forbidden"
            ? forbiddenPage()
            : {
                title:
                  code === "token_expired"
                    ? "Your sign-in has expired."
                    : "The server refused the connection.",
                text: `${serverMessage(message)}Try again, or sign in again. This page shows the state when the connection ended.`,
              },
      };
    case "closed":
      return { state, label: "Closed", attempts: 0, problem: null };
  }
}

/** Return the reason for which the page is not connected at the moment. */
function interruption(code: string | null, message: string | null) {
  switch (code) {
    case "token_unavailable":
      return {
        title: "The server issues no token at the moment.",
        text: `${serverMessage(message)}${STALE}`,
      };
    case "no_websocket":
      return {
        title: "The server answers, but no WebSocket opens.",
        text: `Its proxy has to forward WebSockets. ${STALE}`,
      };
    case "unavailable":
    case "too_many_connections":
      return {
        title: "The server accepts no connection now.",
        text: `${message ? sentence(upperFirst(message)) : ""}${STALE}`,
      };
    default:
      return { title: "The connection was lost. Reconnecting…", text: STALE };
  }
}

/** The server refuses the page for every user, so this does not propose to sign in again. */
function forbiddenPage(): { readonly title: string; readonly text: string } {
  return {
    title: "The server does not accept this page.",
    text:
      `Its origin is not allowed: add ${location.origin} to JOBCAST_CORS_ORIGINS of the ` +
      "server. If it is the server's own, its proxy has to pass on Host and X-Forwarded-Proto.",
  };
}

function serverMessage(message: string | null): string {
  return message ? `Message of the server: ${sentence(message)}` : "";
}

/** Return a text with a full stop and a space. */
function sentence(text: string): string {
  return `${text}${/[.!?]$/.test(text) ? "" : "."} `;
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

/** Return whether the browser reports a network connection. */
export function useOnline(): boolean {
  return useStore(online);
}
