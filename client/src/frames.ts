const TIMER_FRAME = 16; // ms between two tellings where there are no frames
// A page that gets hidden has no more frames: whoever waits for one is told by a timer.
const LATEST_FRAME = 500; // ms

/** Tells listeners that something changed: each once a frame, however often it did. */
export class Frames {
  readonly #waiting = new Set<() => void>();
  #cancel: (() => void) | null = null;

  /** Calls `tell` in the next frame, once. */
  request(tell: () => void): void {
    this.#waiting.add(tell);
    this.#cancel ??= nextFrame(() => this.flush());
  }

  /** Calls what waits for the next frame now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = null;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const tell of waiting) {
      tell();
    }
  }
}

function nextFrame(action: () => void): () => void {
  const visible = typeof document === "undefined" || document.visibilityState === "visible";
  if (typeof requestAnimationFrame !== "function" || !visible) {
    const timer = setTimeout(action, TIMER_FRAME);
    return () => clearTimeout(timer);
  }
  const frame = requestAnimationFrame(action);
  const timer = setTimeout(action, LATEST_FRAME);
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
}
