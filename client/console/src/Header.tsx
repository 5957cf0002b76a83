import { type ReactElement, useState } from "react";
import type { Link } from "./connection/connectionWords";
import { messageOf } from "./lib/records";
import { signOut } from "./session/session";
import { ThemeButton } from "./ui/ThemeButton";
import { Wordmark } from "./ui/Wordmark";

interface Props {
  readonly user: string;
  readonly demonstration: boolean;
  readonly link: Link;
}

export function Header({ user, demonstration, link }: Props): ReactElement {
  const [problem, setProblem] = useState<string | null>(null);
  const leave = (): void => {
    setProblem(null);
    signOut().catch((error: unknown) => setProblem(messageOf(error)));
  };
  return (
    <header className="header">
      <a className="home" href="#/" aria-label="jobcast, all jobs">
        <Wordmark />
      </a>
      {demonstration ? <span className="tag">Demonstration</span> : null}
      <span className="link-state" data-state={link.state} title="The connection to the server">
        <span className="dot" />
        <span className="visually-hidden">Connection: </span>
        {link.short}
      </span>
      <span className="spacer" />
      {problem === null ? null : (
        <span className="problem" role="alert">
          {problem}
        </span>
      )}
      <span
        className="user"
        title={`Signed in as ${user}${demonstration ? ", in a demonstration" : ""}`}
      >
        {user}
      </span>
      <ThemeButton />
      {demonstration ? (
        <button type="button" className="button bare" onClick={leave}>
          Sign out
        </button>
      ) : null}
    </header>
  );
}
