/** The browser's local storage. It may be full, disabled, or hold values of another version. */

export function readStorage(key: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null; // disabled, or not JSON
  }
}

/** Store a value. Returns whether it was stored. */
export function writeStorage(key: string, value: unknown): boolean {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false; // disabled or full; the page keeps the value until it is reloaded
  }
}
