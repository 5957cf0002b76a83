const FALLBACK_INTERVAL = 16; // ms between two flushes where animation frames are not available
// A page that becomes hidden gets no more animation frames, so a timer backs each one up.
const MAX_FRAME_DELAY = 500; // ms

/** Runs callbacks once per animation frame, however often each was scheduled. */
export class FrameScheduler {
  readonly #pending = new Set<() => void>();
  #cancel: (() => void) | null = null;

  /** Run `callback` in the next frame. A callback that is already scheduled runs only once. */
  schedule(callback: () => void): void {
    this.#pending.add(callback);
    this.#cancel ??= nextFrame(() => this.flush());
  }

  /** Run all scheduled callbacks now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = null;
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const callback of pending) {
      callback();
    }
  }
}

function nextFrame(action: () => void): () => void {
  const visible = typeof document === "undefined" || document.visibilityState === "visible";
  if (typeof requestAnimationFrame !== "function" || !visible) {
    const timer = setTimeout(action, FALLBACK_INTERVAL);
    return () => clearTimeout(timer);
  }
  const frame = requestAnimationFrame(action);
  const timer = setTimeout(action, MAX_FRAME_DELAY);
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
}
