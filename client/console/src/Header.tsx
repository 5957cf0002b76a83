import { type ReactElement, useState } from "react";
import type { ConnectionStatus } from "./connection/connectionText";
import { errorMessage } from "./lib/untrusted";
import { signOut } from "./session/session";
import { ThemeButton } from "./ui/ThemeButton";
import { Wordmark } from "./ui/Wordmark";

interface Props {
  readonly user: string;
  readonly demonstration: boolean;
  readonly status: ConnectionStatus;
}

export function Header({ user, demonstration, status }: Props): ReactElement {
  const [problem, setProblem] = useState<string | null>(null);
  const handleSignOut = (): void => {
    setProblem(null);
    signOut().catch((error: unknown) => setProblem(errorMessage(error)));
  };
  return (
    <header className="header">
      <a className="home" href="#/" aria-label="jobcast, all jobs">
        <Wordmark />
      </a>
      {demonstration ? <span className="tag">Demonstration</span> : null}
      <span
        className="connection-status"
        data-state={status.state}
        title="The connection to the server"
      >
        <span className="dot" />
        <span className="visually-hidden">Connection: </span>
        {status.label}
      </span>
      <span className="spacer" />
      {problem === null ? null : (
        <span className="problem" role="alert">
          {problem}
        </span>
      )}
      <span
        className="user"
        title={`Signed in as ${user}${demonstration ? " (demonstration)" : ""}`}
      >
        {user}
      </span>
      <ThemeButton />
      {demonstration ? (
        <button type="button" className="button bare" onClick={handleSignOut}>
          Sign out
        </button>
      ) : null}
    </header>
  );
}
