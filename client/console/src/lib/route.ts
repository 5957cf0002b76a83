/** The page's routes, which are in the hash of the address. */

import type { Store } from "@jobcast/client";

export type Route =
  | { readonly page: "home" }
  | { readonly page: "start" }
  | { readonly page: "job"; readonly jobId: string };

export function parseRoute(hash: string): Route {
  const [, page, ...rest] = hash.replace(/^#/, "").split("/");
  if (page === "start") {
    return { page: "start" };
  }
  const jobId = rest.join("/");
  return page === "jobs" && jobId ? { page: "job", jobId: decoded(jobId) } : { page: "home" };
}

export function jobHash(jobId: string): string {
  return `#/jobs/${encodeURIComponent(jobId)}`;
}

/** The hash of the address, as a store. */
export const hash: Store<string> = {
  subscribe(listener) {
    window.addEventListener("hashchange", listener);
    return () => window.removeEventListener("hashchange", listener);
  },
  getSnapshot: () => window.location.hash,
};

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // the address contains a bare %
  }
}
