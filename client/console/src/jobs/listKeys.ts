import { type RefObject, useEffect } from "react";
import { isShortcut } from "../lib/shortcuts";

/**
 * `j` and `k` go to the next and the previous job, from wherever one doesn't type. Where there is
 * room for one thing only, the list is not shown beside a job: they open it then.
 */
export function useListKeys(list: RefObject<HTMLUListElement | null>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const way = event.key === "j" ? 1 : event.key === "k" ? -1 : null;
      const link = way !== null && isShortcut(event) ? moveFocus(list.current, way) : null;
      if (link === null) {
        return;
      }
      event.preventDefault();
      if (document.activeElement !== link) {
        link.click(); // what is not shown takes no focus
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [list]);
}

/** Moves the focus by a row: from the one that has it, or from the open one. Returns its link. */
export function moveFocus(list: HTMLUListElement | null, way: 1 | -1): HTMLElement | null {
  const links = [...(list?.querySelectorAll<HTMLElement>("a.row-link") ?? [])];
  const row = document.activeElement?.closest(".row");
  const focused = links.findIndex((link) => row?.contains(link));
  const open = links.findIndex((link) => link.getAttribute("aria-current") === "page");
  const from = focused === -1 ? open : focused;
  const next = links[from === -1 ? (way === 1 ? 0 : links.length - 1) : from + way];
  next?.focus();
  return next ?? null;
}
