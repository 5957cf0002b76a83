import { type ReactElement, useEffect, useRef, useState } from "react";
import { ThemeButton } from "../ui/ThemeButton";
import { Wordmark } from "../ui/Wordmark";
import { look } from "./session";

/** Nobody is signed in, and one signs in elsewhere: in the application that this page is a part of. */
export function SignedOut({ expired }: { readonly expired: boolean }): ReactElement {
  const [busy, setBusy] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = "Not signed in · jobcast";
    if (expired) {
      heading.current?.focus(); // what was here before is gone
    }
  }, [expired]);
  const again = (): void => {
    setBusy(true);
    void look().finally(() => setBusy(false));
  };
  return (
    <main className="sheet">
      <div className="sheet-top">
        <Wordmark />
        <ThemeButton />
      </div>
      <h1 ref={heading} tabIndex={-1}>
        {expired ? "Your session has ended" : "You are not signed in"}
      </h1>
      <p>
        {expired
          ? "Sign in to the application again, then try again here: you go on where you were. Your jobs were not disturbed."
          : "Sign in to the application, then reload this page."}
      </p>
      <button type="button" className="button primary" aria-disabled={busy} onClick={again}>
        Try again
      </button>
    </main>
  );
}
