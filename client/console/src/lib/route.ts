/** The page's routes, which are in the hash of the address. */

import type { Store } from "@jobcast/client";
import { DEFAULT_VIEW, parseView, type View, viewQuery } from "./view";

export type Page =
  | { readonly page: "home" }
  | { readonly page: "start" }
  | { readonly page: "job"; readonly jobId: string };

/** A page, and what the list next to it shows. */
export type Route = Page & { readonly view: View };

export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#/, "");
  const mark = text.indexOf("?");
  const path = mark === -1 ? text : text.slice(0, mark);
  return { ...parsePage(path), view: parseView(mark === -1 ? "" : text.slice(mark)) };
}

/** Return the hash of a job's page. */
export function jobHash(jobId: string, view: View = DEFAULT_VIEW): string {
  return `#/jobs/${encodeURIComponent(jobId)}${viewQuery(view)}`;
}

/** Return the hash of the list. */
export function listHash(view: View = DEFAULT_VIEW): string {
  return `#/${viewQuery(view)}`;
}

export function startHash(view: View = DEFAULT_VIEW): string {
  return `#/start${viewQuery(view)}`;
}

/** Return the hash of the same page with another view. */
export function hashWithView(route: Route, view: View): string {
  switch (route.page) {
    case "job":
      return jobHash(route.jobId, view);
    case "start":
      return startHash(view);
    case "home":
      return listHash(view);
  }
}

/** The hash of the address, as a store. */
export const hash: Store<string> = {
  subscribe(listener) {
    window.addEventListener("hashchange", listener);
    return () => window.removeEventListener("hashchange", listener);
  },
  getSnapshot: () => window.location.hash,
};

/** Replace the hash of the address without an entry in the browser's history. */
export function replaceHash(hash: string): void {
  window.history.replaceState(window.history.state, "", hash || "#/");
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

function parsePage(path: string): Page {
  const [, page, ...rest] = path.split("/");
  if (page === "start") {
    return { page: "start" };
  }
  const jobId = rest.join("/");
  return page === "jobs" && jobId ? { page: "job", jobId: decoded(jobId) } : { page: "home" };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // the address contains a bare %
  }
}
