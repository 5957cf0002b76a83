import { type ReactElement, useEffect, useState } from "react";
import { copy } from "../lib/clipboard";
import { announce } from "../lib/liveRegion";
import { messageOf } from "../lib/records";
import { Icon } from "./Icon";

interface Props {
  readonly label: string;
  /** Asked when the button is pressed. */
  readonly text: () => string;
  /** Only the icon is seen. */
  readonly small?: boolean;
}

const SHOWN = 2000; // ms that it says how it went

export function CopyButton({ label, text, small = false }: Props): ReactElement {
  const [answer, setAnswer] = useState<string | null>(null);
  useEffect(() => {
    const timer = answer === null ? undefined : setTimeout(() => setAnswer(null), SHOWN);
    return () => clearTimeout(timer);
  }, [answer]);
  const press = (): void => {
    copy(text()).then(
      () => say("Copied"),
      (error: unknown) => say(`Not copied: ${messageOf(error)}`),
    );
  };
  const say = (words: string): void => {
    setAnswer(words);
    announce(words);
  };
  return (
    <button
      type="button"
      className={small ? "button icon-only" : "button"}
      aria-label={small ? label : undefined}
      title={answer ?? label}
      onClick={press}
    >
      <Icon name={answer === null ? "copy" : answer === "Copied" ? "check" : "cross"} />
      {small ? null : (answer ?? label)}
    </button>
  );
}
