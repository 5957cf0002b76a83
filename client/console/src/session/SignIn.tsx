import { type FormEvent, type ReactElement, useEffect, useRef, useState } from "react";
import { messageOf } from "../lib/records";
import { ThemeButton } from "../ui/ThemeButton";
import { Wordmark } from "../ui/Wordmark";
import { signIn } from "./session";

interface Props {
  readonly expired: boolean;
  /** Who was signed in before. */
  readonly user: string | null;
}

/** The demonstration's sign-in: a name and no password. */
export function SignIn({ expired, user }: Props): ReactElement {
  const [name, setName] = useState(user ?? "demo");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = "Sign in · jobcast";
    if (expired) {
      heading.current?.focus(); // what was here before is gone
    }
  }, [expired]);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    signIn(name.trim()).catch((error: unknown) => {
      setProblem(messageOf(error));
      setBusy(false);
    });
  };
  return (
    <main className="sheet">
      <div className="sheet-top">
        <Wordmark />
        <ThemeButton />
      </div>
      <h1 ref={heading} tabIndex={-1}>
        {expired ? "Sign in again" : "Sign in"}
      </h1>
      <p>
        {expired
          ? "Your session has ended. Sign in again to go on where you were; your jobs were not disturbed."
          : "See where your jobs are, and why they failed."}
      </p>
      <form className="sign-in" aria-label="Sign in" onSubmit={submit}>
        <label htmlFor="name">Name</label>
        <div className="joined">
          <input
            id="name"
            className="field"
            value={name}
            onChange={(event) => setName(event.target.value)}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            maxLength={40}
            required
            aria-invalid={problem !== null}
            aria-describedby={problem === null ? "name-help" : "name-help name-problem"}
          />
          <button type="submit" className="button primary" aria-disabled={busy}>
            {busy ? "Signing in…" : "Sign in"}
          </button>
        </div>
        <p id="name-help" className="faint">
          1 to 40 letters, digits or - _ .
        </p>
        {problem === null ? null : (
          <p id="name-problem" className="problem" role="alert">
            {problem}
          </p>
        )}
      </form>
      <p className="note">
        <strong>This is a demonstration.</strong> Any name will do, and there is no password:
        whoever takes a name sees its jobs. A real application puts its own sign-in here.
      </p>
    </main>
  );
}
