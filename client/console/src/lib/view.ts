/** What the list of jobs shows. It is in the address, so that links share it. */

export const GROUPS = ["all", "stuck", "queued", "running", "failed", "cancelled", "done"] as const;
export type Group = (typeof GROUPS)[number];

/** The ages of the oldest jobs to show, in ms. */
export const AGES = {
  "15m": 15 * 60_000,
  "1h": 3600_000,
  "24h": 24 * 3600_000,
  "7d": 7 * 24 * 3600_000,
} as const;
export type Age = keyof typeof AGES;

export interface View {
  /** The feed; null for all jobs if the server allows it, or else the user's own. */
  readonly feed: string | null;
  readonly group: Group;
  readonly task: string | null;
  readonly tag: string | null;
  readonly owner: string | null;
  readonly since: Age | null;
  /** The words to search for. */
  readonly search: string;
}

export const DEFAULT_VIEW: View = {
  feed: null,
  group: "all",
  task: null,
  tag: null,
  owner: null,
  since: null,
  search: "",
};

/** Parse the query of an address. Unknown values have no effect. */
export function parseView(query: string): View {
  const values = new URLSearchParams(query);
  const group = values.get("show");
  const since = values.get("since");
  return {
    feed: values.get("feed") || null,
    group: GROUPS.find((name) => name === group) ?? "all",
    task: values.get("task") || null,
    tag: values.get("tag") || null,
    owner: values.get("owner") || null,
    since: since !== null && Object.hasOwn(AGES, since) ? (since as Age) : null,
    search: values.get("q") ?? "",
  };
}

/** Return the query of a view: `?show=failed&task=tasks.report`, or an empty text. */
export function viewQuery(view: View): string {
  const values = new URLSearchParams();
  const { feed, group, task, tag, owner, since, search } = view;
  const fields = { feed, show: group === "all" ? null : group, task, tag, owner, since, q: search };
  for (const [name, value] of Object.entries(fields)) {
    if (value) {
      values.set(name, value);
    }
  }
  const query = values.toString();
  return query === "" ? "" : `?${query}`;
}

/** Return how many filters of a view are set, besides the group and the search. */
export function filterCount({ task, tag, owner, since }: View): number {
  return [task, tag, owner, since].filter((value) => value !== null).length;
}
