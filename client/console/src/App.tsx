import { JobcastProvider } from "@jobcast/client/react";
import { type ReactElement, useMemo } from "react";
import { Console } from "./Console";
import { useStore } from "./lib/useStore";
import type { Access } from "./session/session";
import { AccessContext, useSite } from "./site";

const LOG_LIMIT = 20_000; // lines to keep per job

export function App(): ReactElement {
  const { session, SignIn } = useSite();
  const current = useStore(session.state);
  switch (current.state) {
    case "loading":
      return <main className="sheet" aria-busy="true" aria-label="Loading" />;
    case "unreachable":
      return (
        <main className="sheet">
          <h1>The server cannot be reached</h1>
          <p>{current.message} Your jobs keep running.</p>
          <button type="button" className="button primary" onClick={() => void session.load()}>
            Try again
          </button>
        </main>
      );
    case "signed_out":
      return <SignIn session={current} />;
    case "signed_in":
      return <SignedInConsole key={current.access.user} access={current.access} />;
  }
}

function SignedInConsole({ access }: { readonly access: Access }): ReactElement {
  const { url, getToken } = access;
  const options = useMemo(() => ({ url, getToken, logLimit: LOG_LIMIT }), [url, getToken]);
  return (
    <AccessContext value={access}>
      <JobcastProvider options={options}>
        <Console />
      </JobcastProvider>
    </AccessContext>
  );
}
