import { useEffect, useRef } from "react";
import { hashOf, type Route } from "../lib/route";

/** Who comes back to the list goes on from the link by which they left it. */
export function useReturn(route: Route): void {
  const here = route.page === "job" ? hashOf(route.jobId) : `#/${route.page}`;
  const before = useRef(here);
  useEffect(() => {
    const from = before.current;
    before.current = here;
    const focused = document.activeElement;
    // The heading took it when what had it was gone. Who went on to something else stays there.
    if (route.page !== "home" || from === here || !focused?.matches("body, main h1")) {
      return;
    }
    const links = [...document.querySelectorAll<HTMLElement>(".pane a")];
    const left = links.find((link) => link.getAttribute("href") === from);
    if (left) {
      left.focus();
    } else if (focused === document.body) {
      document.querySelector<HTMLElement>(".pane h2")?.focus();
    }
  }, [here, route.page]);
}
