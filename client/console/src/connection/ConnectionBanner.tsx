import type { Connection } from "@jobcast/client";
import { useJobClient } from "@jobcast/client/react";
import { type ReactElement, useEffect, useState } from "react";
import { messageOf } from "../lib/records";
import { signOut } from "../session/session";
import { Icon } from "../ui/Icon";
import type { Link } from "./connectionWords";

interface Props {
  readonly link: Link;
  readonly connection: Connection;
  readonly demonstration: boolean;
}

const SHORT = 400; // ms: a connection that is back by then was hardly away

/** What is wrong with the connection, and what one may do. Nothing while nothing is. */
export function ConnectionBanner({ link, connection, demonstration }: Props): ReactElement | null {
  const client = useJobClient();
  const [isShown, setShown] = useState(link.state === "refused");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), SHORT);
    return () => clearTimeout(timer);
  }, []);
  if (!isShown || link.problem === null) {
    return null;
  }
  const leave = (): void => {
    signOut().catch((error: unknown) => setProblem(messageOf(error)));
  };
  return (
    <section className="banner" data-state={link.state} aria-label="Connection">
      <Icon
        name={link.state === "offline" ? "offline" : link.state === "refused" ? "lock" : "again"}
      />
      <p>
        <strong>{link.problem.title}</strong> {link.problem.text}
        {problem === null ? null : <span className="problem"> {problem}</span>}
      </p>
      <div className="banner-actions">
        <button type="button" className="button" onClick={() => client.reconnect()}>
          {connection.state === "refused" ? "Try again" : "Try now"}
        </button>
        {connection.state === "refused" && demonstration ? (
          <button type="button" className="button" onClick={leave}>
            Sign in again
          </button>
        ) : null}
      </div>
    </section>
  );
}
