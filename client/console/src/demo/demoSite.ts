/** The console of the demo, with a sign-in of its own and sample tasks. */

import type { Site } from "../site";
import { session } from "./demoSession";
import { SignIn } from "./SignIn";
import { StartPanel } from "./StartPanel";

export const demoSite: Site = {
  session,
  SignIn,
  label: "Demonstration",
  Start: StartPanel,
};
