/** The browser's storage, which may be full, forbidden, or hold what another version wrote. */

export function recall(key: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null; // forbidden, or no JSON: as good as nothing
  }
}

/** Says whether it is remembered. */
export function remember(key: string, value: unknown): boolean {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false; // forbidden or full: the page works without, until it is reloaded
  }
}
