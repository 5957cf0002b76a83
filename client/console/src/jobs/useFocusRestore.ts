import { useEffect, useRef } from "react";
import { jobHash, type Route } from "../lib/route";

/** When the user returns to the list, focus the link that led away from it. */
export function useFocusRestore(route: Route): void {
  const here = route.page === "job" ? jobHash(route.jobId) : `#/${route.page}`;
  const before = useRef(here);
  useEffect(() => {
    const from = before.current;
    before.current = here;
    const focused = document.activeElement;
    // The heading gets the focus if the focused element is gone. Any other focus is the user's choice.
    if (route.page !== "home" || from === here || !focused?.matches("body, main h1")) {
      return;
    }
    const links = [...document.querySelectorAll<HTMLElement>(".pane a")];
    const link = links.find((one) => one.getAttribute("href") === from);
    if (link) {
      link.focus();
    } else if (focused === document.body) {
      document.querySelector<HTMLElement>(".pane h2")?.focus();
    }
  }, [here, route.page]);
}
