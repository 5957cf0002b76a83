import { type RefObject, useEffect } from "react";
import { isShortcut } from "../lib/shortcuts";

/** `j` and `k` go to the next and the previous job, from wherever one doesn't type. */
export function useListKeys(list: RefObject<HTMLUListElement | null>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const way = event.key === "j" ? 1 : event.key === "k" ? -1 : null;
      if (way !== null && isShortcut(event) && moveFocus(list.current, way)) {
        event.preventDefault();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, [list]);
}

/** Moves the focus by a row: from the one that has it, or from the open one. */
export function moveFocus(list: HTMLUListElement | null, way: 1 | -1): boolean {
  const links = [...(list?.querySelectorAll<HTMLElement>("a.row-link") ?? [])];
  const row = document.activeElement?.closest(".row");
  const focused = links.findIndex((link) => row?.contains(link));
  const open = links.findIndex((link) => link.getAttribute("aria-current") === "page");
  const from = focused === -1 ? open : focused;
  const next = links[from === -1 ? (way === 1 ? 0 : links.length - 1) : from + way];
  next?.focus();
  return next !== undefined;
}
