import type { ComponentProps, ReactElement, ReactNode } from "react";

interface Props extends Omit<ComponentProps<"input">, "value" | "onChange" | "children"> {
  readonly id: string;
  readonly label: string;
  readonly text: string;
  readonly onText: (text: string) => void;
  /** What may be written. */
  readonly help?: string;
  /** What is wrong with the text. */
  readonly problem: string | null;
  /** The button beside it. */
  readonly children: ReactNode;
}

/** The one field of a form, with its button, and what was wrong below. */
export function Field({
  id,
  label,
  text,
  onText,
  help,
  problem,
  children,
  ...input
}: Props): ReactElement {
  const [helpId, problemId] = [`${id}-help`, `${id}-problem`];
  const described = [help && helpId, problem !== null && problemId].filter(Boolean).join(" ");
  return (
    <>
      <label htmlFor={id}>{label}</label>
      <div className="joined">
        <input
          className="field"
          {...input}
          id={id}
          value={text}
          onChange={(event) => onText(event.target.value)}
          autoCapitalize="none"
          spellCheck={false}
          aria-invalid={problem !== null}
          aria-describedby={described || undefined}
        />
        {children}
      </div>
      {help === undefined ? null : (
        <p id={helpId} className="faint">
          {help}
        </p>
      )}
      {problem === null ? null : (
        <p id={problemId} className="problem" role="alert">
          {problem}
        </p>
      )}
    </>
  );
}
