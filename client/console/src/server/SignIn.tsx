import { type ReactElement, useState } from "react";
import { SessionSheet } from "../session/SessionSheet";
import type { SignedOut } from "../session/session";
import { authentication, session } from "./serverSession";
import { TokenForm } from "./TokenForm";

interface Props {
  readonly session: SignedOut;
}

/** Tells a user how to sign in. */
export function SignIn({ session: { expired, reason } }: Props): ReactElement {
  const [busy, setBusy] = useState(false);
  const { methods } = authentication;
  const [hasSession, hasToken] = [methods.includes("session"), methods.includes("token")];
  const load = (): void => {
    setBusy(true);
    void session.load().finally(() => setBusy(false));
  };
  return (
    <SessionSheet
      title="Not signed in"
      heading={expired ? "Your session has ended" : "You are not signed in"}
      expired={expired}
    >
      {expired ? (
        <p>Sign in again to continue where you were. Your jobs are not affected.</p>
      ) : null}
      {hasSession ? (
        <>
          <p>Sign in to the application, then try again here.</p>
          <button type="button" className="button primary" aria-disabled={busy} onClick={load}>
            Try again
          </button>
        </>
      ) : null}
      {hasSession && hasToken ? <p>Or sign in with a token.</p> : null}
      {hasToken ? (
        <TokenForm
          busy={busy}
          problem={reason}
          onToken={(token) => {
            authentication.setToken(token);
            load();
          }}
        />
      ) : null}
    </SessionSheet>
  );
}
