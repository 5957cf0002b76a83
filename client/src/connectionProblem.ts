import type { Connection } from "./connection.js";

/** A reason: `code` for programs, `message` for people. */
export interface Problem {
  readonly code: string;
  readonly message: string;
}

/** Return why the connection is lost or refused; null while it is neither. */
export function connectionProblem({ state, code, message }: Connection): Problem | null {
  if (state !== "refused" && state !== "reconnecting") {
    return null;
  }
  return { code: code ?? state, message: message ?? state };
}

export function isSameProblem(one: Problem | null, other: Problem | null): boolean {
  return one?.code === other?.code && one?.message === other?.message;
}
