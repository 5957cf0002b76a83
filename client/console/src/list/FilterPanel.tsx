import { type ReactElement, useId, useState } from "react";
import { changeView } from "../lib/useRoute";
import { AGES, type Age, filterCount, type View } from "../lib/view";
import { Icon } from "../ui/Icon";
import type { Facets } from "./facets";

interface Props {
  readonly view: View;
  readonly facets: Facets;
  /** Whether the list has jobs of several owners. */
  readonly isAll: boolean;
}

const AGE_LABELS: Record<Age, string> = {
  "15m": "15 minutes",
  "1h": "hour",
  "24h": "24 hours",
  "7d": "7 days",
};

/** The filters by task, tag, owner and time, behind a button. */
export function FilterPanel({ view, facets, isAll }: Props): ReactElement {
  const id = useId();
  const count = filterCount(view);
  const [isOpen, setOpen] = useState(count > 0);
  return (
    <>
      <button
        type="button"
        className="button"
        aria-expanded={isOpen}
        aria-controls={id}
        onClick={() => setOpen(!isOpen)}
      >
        <Icon name={isOpen ? "previous" : "next"} />
        Filters{count > 0 ? ` (${count})` : ""}
      </button>
      <div id={id} className="filter-fields" hidden={!isOpen}>
        <Choice
          label="Task"
          all="All tasks"
          value={view.task}
          values={facets.tasks}
          onChoose={(task) => changeView({ task })}
        />
        <Choice
          label="Tag"
          all="All tags"
          value={view.tag}
          values={facets.tags}
          onChoose={(tag) => changeView({ tag })}
        />
        {isAll || view.owner !== null ? (
          <Choice
            label="Owner"
            all="All owners"
            value={view.owner}
            values={facets.owners}
            onChoose={(owner) => changeView({ owner })}
          />
        ) : null}
        <Choice
          label="Sent"
          all="At any time"
          value={view.since}
          values={Object.keys(AGES)}
          labelOf={(age) => `Within the last ${AGE_LABELS[age as Age]}`}
          onChoose={(since) => changeView({ since: since as Age | null })}
        />
        {count > 0 ? (
          <button
            type="button"
            className="button bare"
            onClick={() => changeView({ task: null, tag: null, owner: null, since: null })}
          >
            Clear the filters
          </button>
        ) : null}
      </div>
    </>
  );
}

interface ChoiceProps {
  readonly label: string;
  /** The label of the choice of all values. */
  readonly all: string;
  readonly value: string | null;
  readonly values: readonly string[];
  readonly labelOf?: (value: string) => string;
  readonly onChoose: (value: string | null) => void;
}

function Choice({
  label,
  all,
  value,
  values,
  labelOf = (text) => text,
  onChoose,
}: ChoiceProps): ReactElement {
  const shown = value === null || values.includes(value) ? values : [value, ...values];
  return (
    <label className="choice">
      <span>{label}</span>
      <select
        className="field"
        value={value ?? ""}
        data-set={value === null ? undefined : true}
        onChange={(event) => onChoose(event.target.value || null)}
      >
        <option value="">{all}</option>
        {shown.map((one) => (
          <option key={one} value={one}>
            {labelOf(one)}
          </option>
        ))}
      </select>
    </label>
  );
}
