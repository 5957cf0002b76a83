/** Tracks whether the user has navigated. Only then does a page's heading take the focus. */

let navigated = false;
let initialHash = "";

export function trackNavigation(): void {
  initialHash = window.location.hash;
  window.addEventListener("hashchange", () => {
    navigated = true;
  });
}

export function hasNavigated(): boolean {
  // The address changes before the event, and the page may render in between.
  return navigated || window.location.hash !== initialHash;
}
