/** The parts of the page that differ between the console of the library and that of the demo. */

import { type ComponentType, createContext, useContext } from "react";
import type { Route } from "./lib/route";
import type { Access, Session, SignedOut } from "./session/session";

export interface Site {
  readonly session: Session;
  /** The page of a user who is not signed in. */
  readonly SignIn: ComponentType<{ readonly session: SignedOut }>;
  /** A label in the header. */
  readonly label?: string;
  /** The page that starts jobs. */
  readonly Start?: ComponentType<{ readonly page: Route["page"] }>;
}

export const SiteContext = createContext<Site | null>(null);
export const AccessContext = createContext<Access | null>(null);

export function useSite(): Site {
  return provided(useContext(SiteContext), "SiteContext");
}

/** Return the access of the signed-in user. */
export function useAccess(): Access {
  return provided(useContext(AccessContext), "AccessContext");
}

function provided<T>(value: T | null, name: string): T {
  if (value === null) {
    throw new Error(`this component needs a <${name}> above it`);
  }
  return value;
}
