import type { ComponentProps, ReactElement, ReactNode } from "react";

interface Props extends Omit<ComponentProps<"input">, "value" | "onChange" | "children"> {
  readonly id: string;
  readonly label: string;
  readonly text: string;
  readonly onText: (text: string) => void;
  /** The expected format. */
  readonly help?: string;
  /** The error message. */
  readonly problem: string | null;
  /** The button next to the field. */
  readonly children: ReactNode;
}

/** A form's only field, with its button and its error message. */
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
