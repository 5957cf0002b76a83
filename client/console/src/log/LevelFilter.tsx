import { LEVELS, type Level } from "@jobcast/client";
import type { ReactElement } from "react";
import { count, upperFirst } from "../lib/numbers";

interface Props {
  readonly counts: Readonly<Record<Level, number>>;
  readonly hidden: ReadonlySet<Level>;
  readonly onToggle: (level: Level) => void;
}

/** Which levels are shown, of those that there are. */
export function LevelFilter({ counts, hidden, onToggle }: Props): ReactElement | null {
  const levels = LEVELS.filter((level) => counts[level] > 0);
  return levels.length === 0 ? null : (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is of a form.
    <div className="levels" role="group" aria-label="Levels shown">
      {levels.map((level) => (
        <button
          type="button"
          key={level}
          data-level={level}
          aria-pressed={!hidden.has(level)}
          onClick={() => onToggle(level)}
        >
          {upperFirst(level)} <span className="number">{count(counts[level])}</span>
        </button>
      ))}
    </div>
  );
}
