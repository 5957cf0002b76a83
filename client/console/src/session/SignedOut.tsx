import { type ReactElement, useState } from "react";
import { SessionSheet } from "./SessionSheet";
import { loadSession } from "./session";

/** No user is signed in, and the sign-in belongs to the application that embeds this page. */
export function SignedOut({ expired }: { readonly expired: boolean }): ReactElement {
  const [busy, setBusy] = useState(false);
  const retry = (): void => {
    setBusy(true);
    void loadSession().finally(() => setBusy(false));
  };
  return (
    <SessionSheet
      title="Not signed in"
      heading={expired ? "Your session has ended" : "You are not signed in"}
      expired={expired}
    >
      <p>
        {expired
          ? "Sign in to the application again, then try again here to continue where you were. Your jobs are not affected."
          : "Sign in to the application, then reload this page."}
      </p>
      <button type="button" className="button primary" aria-disabled={busy} onClick={retry}>
        Try again
      </button>
    </SessionSheet>
  );
}
