import type { Connection } from "@jobcast/client";
import { useJobClient } from "@jobcast/client/react";
import { type ReactElement, useEffect, useState } from "react";
import { errorMessage } from "../lib/untrusted";
import { useSignOut } from "../session/useSignOut";
import { Icon } from "../ui/Icon";
import type { ConnectionStatus } from "./connectionText";

interface Props {
  readonly status: ConnectionStatus;
  readonly connection: Connection;
}

const DELAY = 400; // ms; shorter interruptions show no banner

/** A problem of the connection, with the actions that may solve it. */
export function ConnectionBanner({ status, connection }: Props): ReactElement | null {
  const client = useJobClient();
  const signOut = useSignOut();
  const [isShown, setShown] = useState(status.state === "refused");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), DELAY);
    return () => clearTimeout(timer);
  }, []);
  if (!isShown || status.problem === null) {
    return null;
  }
  const handleSignOut = (): void => {
    signOut?.().catch((error: unknown) => setProblem(errorMessage(error)));
  };
  return (
    <section className="banner" data-state={status.state} aria-label="Connection">
      <Icon
        name={
          status.state === "offline" ? "offline" : status.state === "refused" ? "lock" : "retry"
        }
      />
      <p>
        <strong>{status.problem.title}</strong> {status.problem.text}
        {problem === null ? null : <span className="problem"> {problem}</span>}
      </p>
      <div className="banner-actions">
        <button type="button" className="button" onClick={() => client.reconnect()}>
          {connection.state === "refused" ? "Try again" : "Retry now"}
        </button>
        {connection.state === "refused" && connection.code !== "forbidden" && signOut !== null ? (
          <button type="button" className="button" onClick={handleSignOut}>
            Sign in again
          </button>
        ) : null}
      </div>
    </section>
  );
}
