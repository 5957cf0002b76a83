import type { ReactElement } from "react";
import { count, upperFirst } from "../lib/numbers";

export type Filter = "all" | "active" | "failed" | "done";

const FILTERS: readonly Filter[] = ["all", "active", "failed", "done"];

export type Counts = Record<Exclude<Filter, "all">, number>;

interface Props {
  /** Of the jobs that were looked at: the latest of all. */
  readonly counts: Counts;
  readonly total: number;
  readonly looked: number;
  readonly chosen: Filter;
  readonly onChoose: (filter: Filter) => void;
}

export function JobFilter({ counts, total, looked, chosen, onChoose }: Props): ReactElement {
  const isPart = looked < total;
  const shown = (filter: Filter): string => {
    if (filter === "all") {
      return count(total);
    }
    return isPart ? `${count(counts[filter])}+` : count(counts[filter]);
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is of a form.
    <div className="filter" role="group" aria-label="Show jobs">
      {FILTERS.map((filter) => (
        <button
          type="button"
          key={filter}
          aria-pressed={filter === chosen}
          data-filter={filter}
          title={isPart && filter !== "all" ? `Of the ${count(looked)} latest jobs` : undefined}
          onClick={() => onChoose(filter)}
        >
          {upperFirst(filter)} <span className="number">{shown(filter)}</span>
        </button>
      ))}
    </div>
  );
}
