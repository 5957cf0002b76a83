import { type FormEvent, type ReactElement, useState } from "react";
import { messageOf } from "../lib/records";
import { Field } from "../ui/Field";
import { Sheet } from "./Sheet";
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
    <Sheet title="Sign in" heading={expired ? "Sign in again" : "Sign in"} expired={expired}>
      <p>
        {expired
          ? "Your session has ended. Sign in again to go on where you were; your jobs were not disturbed."
          : "See where your jobs are, and why they failed."}
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
        <strong>This is a demonstration.</strong> Any name will do, and there is no password:
        whoever takes a name sees its jobs. A real application puts its own sign-in here.
      </p>
    </Sheet>
  );
}
