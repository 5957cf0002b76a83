import type { ReactElement } from "react";
import { count, upperFirst } from "../lib/numbers";

export type Filter = "all" | "active" | "failed" | "done";

const FILTERS: readonly Filter[] = ["all", "active", "failed", "done"];

interface Props {
  readonly counts: Record<Filter, number>;
  readonly chosen: Filter;
  readonly onChoose: (filter: Filter) => void;
}

export function JobFilter({ counts, chosen, onChoose }: Props): ReactElement {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is of a form.
    <div className="filter" role="group" aria-label="Show jobs">
      {FILTERS.map((filter) => (
        <button
          type="button"
          key={filter}
          aria-pressed={filter === chosen}
          data-filter={filter}
          onClick={() => onChoose(filter)}
        >
          {upperFirst(filter)} <span className="number">{count(counts[filter])}</span>
        </button>
      ))}
    </div>
  );
}
