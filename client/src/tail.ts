/**
 * The last items of a list that grows: immutable, but adding to it copies nothing.
 *
 * Each version remembers its part of an array that it shares with its successors, which only ever
 * append. `items` is cut out of it when somebody asks.
 */
export class Tail<T> {
  readonly dropped: number;
  readonly #shared: T[];
  readonly #from: number;
  readonly #to: number;
  #items: readonly T[] | null = null;

  constructor(shared: T[] = [], from = 0, dropped = 0) {
    this.#shared = shared;
    this.#from = from;
    this.#to = shared.length;
    this.dropped = dropped;
  }

  get items(): readonly T[] {
    this.#items ??= this.#shared.slice(this.#from, this.#to);
    return this.#items;
  }

  /** The list with one more item, and only the last `limit` of it. */
  add(item: T, limit: number): Tail<T> {
    // Another version may have appended already; and what was dropped has to go in the end.
    const append = this.#shared.length === this.#to && this.#from <= limit;
    const shared = append ? this.#shared : this.#shared.slice(this.#from, this.#to);
    const start = append ? this.#from : 0;
    shared.push(item);
    const from = Math.max(start, shared.length - limit);
    return new Tail(shared, from, this.dropped + from - start);
  }
}
