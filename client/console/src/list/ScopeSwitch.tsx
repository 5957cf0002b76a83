import type { ReactElement } from "react";
import { changeView } from "../lib/useRoute";

interface Props {
  /** The name of the feed. */
  readonly feed: string;
  readonly mayListAll: boolean | null;
}

/** Switches between all jobs and the user's own, unless the user may not list all. */
export function ScopeSwitch({ feed, mayListAll }: Props): ReactElement | null {
  const offersAll = mayListAll ?? feed !== "all";
  const names = offersAll ? ["all", "mine"] : ["mine"];
  if (!offersAll && (feed === "mine" || feed === "all")) {
    return null;
  }
  const shown = names.includes(feed) ? names : [...names, feed];
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset belongs to a form.
    <div className="scope" role="group" aria-label="Whose jobs">
      {shown.map((name) => (
        <button
          type="button"
          key={name}
          aria-pressed={name === feed}
          onClick={() => changeView({ feed: name === "all" ? null : name })}
        >
          {label(name)}
        </button>
      ))}
    </div>
  );
}

function label(feed: string): string {
  return feed === "all" ? "All" : feed === "mine" ? "Mine" : feed.replace(":", ": ");
}
