import { useSyncExternalStore } from "react";
import { serverNow } from "./serverClock";

const TICK = 1000; // ms

const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === undefined) {
    timer = setInterval(() => {
      for (const listener of listeners) {
        listener();
      }
    }, TICK);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

const second = (): number => Math.floor(serverNow() / TICK) * TICK;
const zero = (): number => 0;
const never = (): (() => void) => () => {};

/** Return the server's time in ms, updated each second; 0 if `ticks` is false. */
export function useNow(ticks = true): number {
  return useSyncExternalStore(ticks ? subscribe : never, ticks ? second : zero);
}
