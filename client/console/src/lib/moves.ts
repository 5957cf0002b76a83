/** Whether the page has changed since it was loaded: only then does its heading take the focus. */

let moved = false;
let loaded = "";

export function watchMoves(): void {
  loaded = window.location.hash;
  window.addEventListener("hashchange", () => {
    moved = true;
  });
}

export function hasMoved(): boolean {
  // The event comes later than the address changes, and a page may be drawn in between.
  return moved || window.location.hash !== loaded;
}
