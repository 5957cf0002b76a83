import { type RefObject, useEffect } from "react";

/** `j` and `k` go to the next and the previous job, from wherever one doesn't type. */
export function useListKeys(list: RefObject<HTMLUListElement | null>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const way = event.key === "j" ? 1 : event.key === "k" ? -1 : null;
      if (way !== null && !isTyping(event) && moveFocus(list.current, way)) {
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

/** Whether a key is text, or a shortcut of somebody else. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as Element | null;
  return (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    target?.closest("input, textarea, select, [contenteditable]") !== null
  );
}
