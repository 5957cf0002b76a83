import { type ReactElement, useState } from "react";
import type { ConnectionStatus } from "./connection/connectionText";
import { errorMessage } from "./lib/untrusted";
import { useSignOut } from "./session/useSignOut";
import { useAccess, useSite } from "./site";
import { ThemeButton } from "./ui/ThemeButton";
import { Wordmark } from "./ui/Wordmark";

interface Props {
  readonly status: ConnectionStatus;
}

export function Header({ status }: Props): ReactElement {
  const { label } = useSite();
  const { user } = useAccess();
  const signOut = useSignOut();
  const [problem, setProblem] = useState<string | null>(null);
  const handleSignOut = (): void => {
    setProblem(null);
    signOut?.().catch((error: unknown) => setProblem(errorMessage(error)));
  };
  return (
    <header className="header">
      <a className="home" href="#/" aria-label="jobcast, all jobs">
        <Wordmark />
      </a>
      {label === undefined ? null : <span className="tag">{label}</span>}
      <span
        className="connection-status"
        data-state={status.state}
        title="The connection to the server"
      >
        <span className="dot" />
        <span className="visually-hidden">Connection: </span>
        {status.label}
        {status.attempts > 0 ? <span className="attempts"> ({status.attempts})</span> : null}
      </span>
      <span className="spacer" />
      {problem === null ? null : (
        <span className="problem" role="alert">
          {problem}
        </span>
      )}
      <span className="user" title={`Signed in as ${user}`}>
        {user}
      </span>
      <ThemeButton />
      {signOut === null ? null : (
        <button type="button" className="button bare" onClick={handleSignOut}>
          Sign out
        </button>
      )}
    </header>
  );
}
