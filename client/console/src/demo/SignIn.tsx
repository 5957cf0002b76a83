import { type FormEvent, type ReactElement, useState } from "react";
import { errorMessage } from "../lib/untrusted";
import { SessionSheet } from "../session/SessionSheet";
import type { SignedOut } from "../session/session";
import { Field } from "../ui/Field";
import { signIn } from "./demoSession";

interface Props {
  readonly session: SignedOut;
}

/** The demonstration's sign-in: a name and no password. */
export function SignIn({ session: { expired, user } }: Props): ReactElement {
  const [name, setName] = useState(user ?? "demo");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    signIn(name.trim()).catch((error: unknown) => {
      setProblem(errorMessage(error));
      setBusy(false);
    });
  };
  return (
    <SessionSheet title="Sign in" heading={expired ? "Sign in again" : "Sign in"} expired={expired}>
      <p>
        {expired
          ? "Your session has ended. Sign in again to continue where you were. Your jobs are not affected."
          : "See how far your jobs are, and why they failed."}
      </p>
      <form className="sign-in" aria-label="Sign in" onSubmit={submit}>
        <Field
          id="name"
          label="Name"
          help="1 to 40 letters, digits or - _ ."
          text={name}
          onText={setName}
          problem={problem}
          autoComplete="username"
          maxLength={40}
          required
        >
          <button type="submit" className="button primary" aria-disabled={busy}>
            {busy ? "Signing in…" : "Sign in"}
          </button>
        </Field>
      </form>
      <p className="note">
        <strong>This is a demonstration.</strong> Any name works, and there is no password: everyone
        who signs in with a name sees its jobs. A real application has its own sign-in here.
      </p>
    </SessionSheet>
  );
}
