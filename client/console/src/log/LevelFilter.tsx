import type { Level } from "@jobcast/client";
import type { ReactElement } from "react";
import { formatCount } from "../lib/formatNumber";
import { type LevelCounts, levelsIn } from "../lib/logView";
import { labelOf } from "../lib/openValue";

interface Props {
  readonly counts: LevelCounts;
  readonly hidden: ReadonlySet<Level>;
  readonly onToggle: (level: Level) => void;
}

/** Toggles for the levels that occur in the log. */
export function LevelFilter({ counts, hidden, onToggle }: Props): ReactElement | null {
  const levels = levelsIn(counts);
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
          {labelOf(level)} <span className="number">{formatCount(counts.get(level) ?? 0)}</span>
        </button>
      ))}
    </div>
  );
}
