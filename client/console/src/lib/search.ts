/** Case-insensitive search in a text. */

export interface Segment {
  readonly text: string;
  readonly hit: boolean;
}

export function includesText(text: string, needle: string): boolean {
  return needle !== "" && text.toLowerCase().includes(needle.toLowerCase());
}

/** Split a text into matching and other segments. */
export function splitMatches(text: string, needle: string): readonly Segment[] {
  const small = text.toLowerCase();
  const query = needle.toLowerCase();
  // If lower case changes the length, positions do not correspond.
  if (query === "" || small.length !== text.length) {
    return [{ text, hit: false }];
  }
  const segments: Segment[] = [];
  let from = 0;
  for (let at = small.indexOf(query); at !== -1; at = small.indexOf(query, from)) {
    if (at > from) {
      segments.push({ text: text.slice(from, at), hit: false });
    }
    segments.push({ text: text.slice(at, at + query.length), hit: true });
    from = at + query.length;
  }
  if (from < text.length || segments.length === 0) {
    segments.push({ text: text.slice(from), hit: false });
  }
  return segments;
}

/** Return the position after (or before) `at` in an ascending list, wrapping around. */
export function nextHit(positions: readonly number[], at: number, by: 1 | -1): number | null {
  const next =
    by === 1
      ? positions.find((position) => position > at)
      : positions.findLast((position) => position < at);
  return next ?? (by === 1 ? positions[0] : positions.at(-1)) ?? null;
}
