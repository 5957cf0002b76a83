import { type ReactElement, useState } from "react";
import { Sheet } from "./Sheet";
import { look } from "./session";

/** Nobody is signed in, and one signs in elsewhere: in the application that this page is a part of. */
export function SignedOut({ expired }: { readonly expired: boolean }): ReactElement {
  const [busy, setBusy] = useState(false);
  const again = (): void => {
    setBusy(true);
    void look().finally(() => setBusy(false));
  };
  return (
    <Sheet
      title="Not signed in"
      heading={expired ? "Your session has ended" : "You are not signed in"}
      expired={expired}
    >
      <p>
        {expired
          ? "Sign in to the application again, then try again here: you go on where you were. Your jobs were not disturbed."
          : "Sign in to the application, then reload this page."}
      </p>
      <button type="button" className="button primary" aria-disabled={busy} onClick={again}>
        Try again
      </button>
    </Sheet>
  );
}
