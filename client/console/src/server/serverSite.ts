/** The console of a jobcast server: its users sign in with a token, or to the application. */

import type { Site } from "../site";
import { SignIn } from "./SignIn";
import { session } from "./serverSession";

export const serverSite: Site = { session, SignIn };
