import type { ReactElement } from "react";
import { formatCount, upperFirst } from "../lib/formatNumber";

export type Filter = "all" | "active" | "failed" | "done";

const FILTERS: readonly Filter[] = ["all", "active", "failed", "done"];

export type Counts = Record<Exclude<Filter, "all">, number>;

interface Props {
  /** The counts among the latest `counted` jobs. */
  readonly counts: Counts;
  readonly total: number;
  readonly counted: number;
  readonly chosen: Filter;
  readonly onChoose: (filter: Filter) => void;
}

export function JobFilter({ counts, total, counted, chosen, onChoose }: Props): ReactElement {
  const isPart = counted < total;
  const shown = (filter: Filter): string => {
    if (filter === "all") {
      return formatCount(total);
    }
    return isPart ? `${formatCount(counts[filter])}+` : formatCount(counts[filter]);
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset belongs to a form.
    <div className="filter" role="group" aria-label="Show jobs">
      {FILTERS.map((filter) => (
        <button
          type="button"
          key={filter}
          aria-pressed={filter === chosen}
          data-filter={filter}
          title={
            isPart && filter !== "all" ? `Of the ${formatCount(counted)} latest jobs` : undefined
          }
          onClick={() => onChoose(filter)}
        >
          {upperFirst(filter)} <span className="number">{shown(filter)}</span>
        </button>
      ))}
    </div>
  );
}
