/** Search in a text: where the words are, without regard to case. */

export interface Piece {
  readonly text: string;
  readonly hit: boolean;
}

export function matches(text: string, needle: string): boolean {
  return needle !== "" && text.toLowerCase().includes(needle.toLowerCase());
}

/** The text cut where the needle begins and ends. */
export function cut(text: string, needle: string): readonly Piece[] {
  const small = text.toLowerCase();
  const word = needle.toLowerCase();
  // Where lower case has another length, positions mean nothing.
  if (word === "" || small.length !== text.length) {
    return [{ text, hit: false }];
  }
  const pieces: Piece[] = [];
  let from = 0;
  for (let at = small.indexOf(word); at !== -1; at = small.indexOf(word, from)) {
    if (at > from) {
      pieces.push({ text: text.slice(from, at), hit: false });
    }
    pieces.push({ text: text.slice(at, at + word.length), hit: true });
    from = at + word.length;
  }
  if (from < text.length || pieces.length === 0) {
    pieces.push({ text: text.slice(from), hit: false });
  }
  return pieces;
}

/** The place in an ascending list that comes after (or before) `at`, round and round. */
export function step(places: readonly number[], at: number, by: 1 | -1): number | null {
  const next =
    by === 1 ? places.find((place) => place > at) : places.findLast((place) => place < at);
  return next ?? (by === 1 ? places[0] : places.at(-1)) ?? null;
}
