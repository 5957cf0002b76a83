import { type ReactElement, useEffect, useState } from "react";
import { copyText } from "../lib/clipboard";
import { announce } from "../lib/liveRegion";
import { errorMessage } from "../lib/untrusted";
import { Icon } from "./Icon";

interface Props {
  readonly label: string;
  /** Called when the button is pressed. */
  readonly text: () => string;
  /** Whether the button shows only an icon. */
  readonly small?: boolean;
}

const OUTCOME_DURATION = 2000; // ms for which the button shows the outcome

export function CopyButton({ label, text, small = false }: Props): ReactElement {
  const [outcome, setOutcome] = useState<string | null>(null);
  useEffect(() => {
    const timer =
      outcome === null ? undefined : setTimeout(() => setOutcome(null), OUTCOME_DURATION);
    return () => clearTimeout(timer);
  }, [outcome]);
  const press = (): void => {
    copyText(text()).then(
      () => showOutcome("Copied"),
      (error: unknown) => showOutcome(`Not copied: ${errorMessage(error)}`),
    );
  };
  const showOutcome = (text: string): void => {
    setOutcome(text);
    announce(text);
  };
  return (
    <button
      type="button"
      className={small ? "button icon-only" : "button"}
      aria-label={small ? label : undefined}
      title={outcome ?? label}
      onClick={press}
    >
      <Icon name={outcome === null ? "copy" : outcome === "Copied" ? "check" : "cross"} />
      {small ? null : (outcome ?? label)}
    </button>
  );
}
