import { LEVELS, type Level } from "@jobcast/client";
import type { ReactElement } from "react";
import { formatCount, upperFirst } from "../lib/formatNumber";

interface Props {
  readonly counts: Readonly<Record<Level, number>>;
  readonly hidden: ReadonlySet<Level>;
  readonly onToggle: (level: Level) => void;
}

/** Toggles for the levels that occur in the log. */
export function LevelFilter({ counts, hidden, onToggle }: Props): ReactElement | null {
  const levels = LEVELS.filter((level) => counts[level] > 0);
  return levels.length === 0 ? null : (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset belongs to a form.
    <div className="levels" role="group" aria-label="Levels shown">
      {levels.map((level) => (
        <button
          type="button"
          key={level}
          data-level={level}
          aria-pressed={!hidden.has(level)}
          onClick={() => onToggle(level)}
        >
          {upperFirst(level)} <span className="number">{formatCount(counts[level])}</span>
        </button>
      ))}
    </div>
  );
}
