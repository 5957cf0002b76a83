import { type FormEvent, type ReactElement, useState } from "react";
import { Field } from "../ui/Field";

interface Props {
  readonly busy: boolean;
  /** Why the server refused the last token. */
  readonly problem: string | null;
  readonly onToken: (token: string) => void;
}

/** Asks for a token. */
export function TokenForm({ busy, problem, onToken }: Props): ReactElement {
  const [text, setText] = useState("");
  const [missing, setMissing] = useState(false);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const token = text.trim();
    setMissing(token === "");
    if (token !== "" && !busy) {
      setText("");
      onToken(token);
    }
  };
  return (
    <>
      <form className="sign-in" aria-label="Sign in" onSubmit={submit} noValidate>
        <Field
          id="token"
          label="Token"
          className="field mono"
          help="The application issues it, or an operator with jobcast token."
          text={text}
          onText={setText}
          problem={
            missing ? "Enter a token." : problem && `The server refused the token: ${problem}.`
          }
          autoComplete="off"
        >
          <button type="submit" className="button primary" aria-disabled={busy}>
            {busy ? "Signing in…" : "Sign in"}
          </button>
        </Field>
      </form>
      <p className="faint">This tab keeps the token until you sign out or close the tab.</p>
    </>
  );
}
