import { JobcastProvider } from "@jobcast/client/react";
import type { ReactElement } from "react";
import { Console } from "./Console";
import { useStore } from "./lib/useStore";
import { SignedOut } from "./session/SignedOut";
import { SignIn } from "./session/SignIn";
import { getToken, look, session } from "./session/session";

const LOG_LIMIT = 20_000; // lines kept of a job
const OPTIONS = { getToken, logLimit: LOG_LIMIT };

export function App(): ReactElement {
  const who = useStore(session);
  switch (who.state) {
    case "loading":
      return <main className="sheet" aria-busy="true" aria-label="Loading" />;
    case "unreachable":
      return (
        <main className="sheet">
          <h1>The server cannot be reached</h1>
          <p>{who.message} Your jobs go on meanwhile.</p>
          <button type="button" className="button primary" onClick={() => void look()}>
            Try again
          </button>
        </main>
      );
    case "signed_out":
      return who.demonstration ? (
        <SignIn expired={who.expired} user={who.user} />
      ) : (
        <SignedOut expired={who.expired} />
      );
    case "signed_in":
      return (
        <JobcastProvider key={who.user} options={OPTIONS}>
          <Console key={who.user} user={who.user} demonstration={who.demonstration} />
        </JobcastProvider>
      );
  }
}
