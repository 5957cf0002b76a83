import { JobcastProvider } from "@jobcast/client/react";
import type { ReactElement } from "react";
import { Console } from "./Console";
import { useStore } from "./lib/useStore";
import { SignedOut } from "./session/SignedOut";
import { SignIn } from "./session/SignIn";
import { getToken, loadSession, session } from "./session/session";

const LOG_LIMIT = 20_000; // lines to keep per job
const OPTIONS = { getToken, logLimit: LOG_LIMIT };

export function App(): ReactElement {
  const current = useStore(session);
  switch (current.state) {
    case "loading":
      return <main className="sheet" aria-busy="true" aria-label="Loading" />;
    case "unreachable":
      return (
        <main className="sheet">
          <h1>The server cannot be reached</h1>
          <p>{current.message} Your jobs keep running.</p>
          <button type="button" className="button primary" onClick={() => void loadSession()}>
            Try again
          </button>
        </main>
      );
    case "signed_out":
      return current.demonstration ? (
        <SignIn expired={current.expired} user={current.user} />
      ) : (
        <SignedOut expired={current.expired} />
      );
    case "signed_in":
      return (
        <JobcastProvider key={current.user} options={OPTIONS}>
          <Console key={current.user} user={current.user} demonstration={current.demonstration} />
        </JobcastProvider>
      );
  }
}
