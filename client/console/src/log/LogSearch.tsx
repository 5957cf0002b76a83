import type { KeyboardEvent, ReactElement, RefObject } from "react";
import { formatCount } from "../lib/formatNumber";
import { shortcuts } from "../lib/shortcuts";
import { useStore } from "../lib/useStore";
import { Icon } from "../ui/Icon";

interface Props {
  readonly input: RefObject<HTMLInputElement | null>;
  readonly text: string;
  readonly hits: number;
  /** The number of the current hit, from 1; 0 for none. */
  readonly at: number;
  readonly onText: (text: string) => void;
  readonly onStep: (by: 1 | -1) => void;
  readonly onLeave: () => void;
}

export function LogSearch({ input, text, hits, at, onText, onStep, onLeave }: Props): ReactElement {
  const hasKey = useStore(shortcuts);
  const press = (event: KeyboardEvent<HTMLInputElement>): void => {
    if (event.key === "Enter") {
      event.preventDefault();
      onStep(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape" && text !== "") {
      event.preventDefault();
      onText("");
    } else if (event.key === "Escape") {
      event.preventDefault();
      onLeave();
    }
  };
  return (
    <search className="log-search">
      <Icon name="search" />
      <input
        ref={input}
        type="search"
        className="field"
        aria-label="Search the log"
        placeholder="Search"
        value={text}
        onChange={(event) => onText(event.target.value)}
        onKeyDown={press}
        autoComplete="off"
        spellCheck={false}
        enterKeyHint="search"
      />
      {text === "" ? (
        hasKey && <kbd>/</kbd>
      ) : (
        <>
          <output className="number faint">{matchCount(hits, at)}</output>
          <button
            type="button"
            className="button icon-only bare"
            aria-label="Previous match"
            aria-disabled={hits === 0}
            onClick={() => onStep(-1)}
          >
            <Icon name="previous" />
          </button>
          <button
            type="button"
            className="button icon-only bare"
            aria-label="Next match"
            aria-disabled={hits === 0}
            onClick={() => onStep(1)}
          >
            <Icon name="next" />
          </button>
        </>
      )}
    </search>
  );
}

function matchCount(hits: number, at: number): string {
  if (hits === 0) {
    return "no matches";
  }
  return at > 0 ? `${formatCount(at)} of ${formatCount(hits)}` : `${formatCount(hits)} found`;
}
