import { type RefObject, useEffect } from "react";
import { isShortcut } from "../lib/shortcuts";

/**
 * The keys `j` and `k` move to the next and the previous job, except while the user types. On a narrow
 * screen, which hides the list next to a job, they open the job.
 */
export function useListKeys(list: RefObject<HTMLUListElement | null>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const direction = event.key === "j" ? 1 : event.key === "k" ? -1 : null;
      const link =
        direction !== null && isShortcut(event) ? moveFocus(list.current, direction) : null;
      if (link === null) {
        return;
      }
      event.preventDefault();
      if (document.activeElement !== link) {
        link.click(); // a hidden link cannot take the focus
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [list]);
}

/** Move the focus by one row, from the focused or the open one. Returns the link of the new row. */
export function moveFocus(list: HTMLUListElement | null, direction: 1 | -1): HTMLElement | null {
  const links = [...(list?.querySelectorAll<HTMLElement>("a.row-link") ?? [])];
  const row = document.activeElement?.closest(".row");
  const focused = links.findIndex((link) => row?.contains(link));
  const open = links.findIndex((link) => link.getAttribute("aria-current") === "page");
  const from = focused === -1 ? open : focused;
  const next = links[from === -1 ? (direction === 1 ? 0 : links.length - 1) : from + direction];
  next?.focus();
  return next ?? null;
}
