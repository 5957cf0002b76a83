/**
 * The last items of a growing list. Each version is immutable, yet adding an item copies nothing:
 * all versions share one array that only grows, and each stores its bounds in it. `items` is sliced
 * from the array on first use.
 */
export class AppendOnlyWindow<T> {
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

  /** Return a window with one more item, reduced to the last `limit` items. */
  add(item: T, limit: number): AppendOnlyWindow<T> {
    // Copy if another version has already appended, or to free the memory of dropped items.
    const append = this.#shared.length === this.#to && this.#from <= limit;
    const shared = append ? this.#shared : this.#shared.slice(this.#from, this.#to);
    const start = append ? this.#from : 0;
    shared.push(item);
    const from = Math.max(start, shared.length - limit);
    return new AppendOnlyWindow(shared, from, this.dropped + from - start);
  }
}
