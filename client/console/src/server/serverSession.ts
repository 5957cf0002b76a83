/** The session of a user of the server. */

import { Session } from "../session/session";
import { ServerAuthentication } from "./serverAuthentication";

export const authentication = new ServerAuthentication();
export const session = new Session(authentication.load);
