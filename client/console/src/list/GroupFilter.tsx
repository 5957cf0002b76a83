import type { ReactElement } from "react";
import { formatCount, upperFirst } from "../lib/formatNumber";
import { changeView } from "../lib/useRoute";
import { GROUPS, type Group } from "../lib/view";
import type { Counts } from "./selection";

interface Props {
  readonly counts: Counts;
  readonly chosen: Group;
  /** Whether there are older jobs, which are not counted. */
  readonly isPart: boolean;
}

/** The groups of states, with the number of jobs in each. */
export function GroupFilter({ counts, chosen, isPart }: Props): ReactElement {
  // Few lists have cancelled jobs, and a narrow pane has no room for an empty group.
  const isShown = (group: Group): boolean =>
    group !== "cancelled" || counts.cancelled > 0 || chosen === "cancelled";
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset belongs to a form.
    <div className="filter" role="group" aria-label="Show jobs">
      {GROUPS.filter(isShown).map((group) => (
        <button
          type="button"
          key={group}
          aria-pressed={group === chosen}
          data-group={group}
          data-some={counts[group] > 0 || undefined}
          title={group === "stuck" ? "Stalled, queued for long, or retrying often" : undefined}
          onClick={() => changeView({ group })}
        >
          {upperFirst(group)}{" "}
          <span className="number">
            {formatCount(counts[group])}
            {isPart ? "+" : ""}
          </span>
        </button>
      ))}
    </div>
  );
}
