/** What the user signs in with: a token, or the session with the application. */

import { ApiError, invalidResponse, request } from "../lib/http";
import { isRecord, stringField } from "../lib/untrusted";
import type { Access } from "../session/session";

/** How users can sign in. */
export type Method = "token" | "session";

interface Config {
  readonly url: string;
  readonly methods: readonly Method[];
}

const KEY = "jobcast.token";
const METHODS: readonly unknown[] = ["token", "session"] satisfies Method[];

export class ServerAuthentication {
  #config: Config | null = null;
  // The session storage ends with the tab, and no other tab can read it.
  #token = readToken();

  /** The ways to sign in; empty until the server has answered. */
  get methods(): readonly Method[] {
    return this.#config?.methods ?? [];
  }

  /** Use a token from now on, until the tab is closed. */
  setToken(token: string | null): void {
    this.#token = token;
    writeToken(token);
  }

  readonly load = async (): Promise<Access | null> => {
    this.#config ??= parseConfig(await request("GET", "config.json"));
    const token = this.#token;
    const headers: Record<string, string> =
      token === null ? {} : { Authorization: `Bearer ${token}` };
    try {
      const user = stringField(await request("GET", "session", { headers }), "user");
      return this.#access(user ?? invalidResponse(), this.#config.url);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        if (token === null) {
          return null;
        }
        this.setToken(null);
      }
      throw error;
    }
  };

  #access(user: string, url: string): Access {
    const isToken = this.#token !== null;
    return {
      user,
      url,
      getToken: isToken ? () => this.#token : null,
      signOut: isToken ? async () => this.setToken(null) : null,
    };
  }
}

/** Parse the configuration. The server does not know its address behind a proxy, so it is relative. */
function parseConfig(body: unknown): Config {
  const path = stringField(body, "server");
  const methods = isRecord(body) ? body.sign_in : null;
  if (path === null || !Array.isArray(methods)) {
    return invalidResponse();
  }
  return {
    url: new URL(path, document.baseURI).href,
    methods: methods.filter((method): method is Method => METHODS.includes(method)),
  };
}

function readToken(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // disabled
  }
}

function writeToken(token: string | null): void {
  try {
    if (token === null) {
      sessionStorage.removeItem(KEY);
    } else {
      sessionStorage.setItem(KEY, token);
    }
  } catch {
    // Disabled: the page keeps the token until it is reloaded.
  }
}
