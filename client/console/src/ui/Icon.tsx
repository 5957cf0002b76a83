import type { ReactElement } from "react";

const PATHS = {
  retry: "M13 5.5A5.5 5.5 0 1 0 13.5 9M13.5 2.5v3.2h-3.2",
  alert: "M8 2.2 14.6 13.6H1.4ZM8 6.6v3M8 11.6v.1",
  back: "M9.5 3.5 5 8l4.5 4.5",
  check: "M3.2 8.6 6.4 11.8 12.8 4.6",
  clock: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2ZM8 4.8V8l2.2 1.6",
  copy: "M5.8 5.8h7v7.4h-7zM10.2 5.6V2.8h-7v7.4h2.4",
  cross: "M4 4l8 8M12 4l-8 8",
  dots: "M3.4 8v.1M8 8v.1M12.6 8v.1",
  down: "M8 3v9M4.2 8.4 8 12.2l3.8-3.8",
  download: "M8 2.5v7.6M4.8 7.2 8 10.4l3.2-3.2M2.8 13.3h10.4",
  lock: "M4 7.2h8v6H4zM5.6 7V5a2.4 2.4 0 0 1 4.8 0v2",
  moon: "M13 9.6A5.6 5.6 0 0 1 6.4 3 5.6 5.6 0 1 0 13 9.6Z",
  next: "M4 6.2 8 10.2l4-4",
  offline:
    "M2 2l12 12M4.6 8.8a5 5 0 0 1 2-1.2M2.4 6.4a8 8 0 0 1 2-1.4M8.6 4.2a8 8 0 0 1 5 2.2M11.4 8.8a5 5 0 0 0-.6-.5M8 12v.1",
  pause: "M5.6 3.8v8.4M10.4 3.8v8.4",
  play: "M5 3.4v9.2L12.6 8Z",
  plus: "M8 3v10M3 8h10",
  previous: "M4 9.8 8 5.8l4 4",
  search: "M7 2.8a4.2 4.2 0 1 0 0 8.4 4.2 4.2 0 0 0 0-8.4ZM10.2 10.2l3 3",
  stop: "M4.4 4.4h7.2v7.2H4.4z",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6ZM8 1.6v1M8 13.4v1M1.6 8h1M13.4 8h1M3.5 3.5l.7.7M11.8 11.8l.7.7M3.5 12.5l.7-.7M11.8 4.2l.7-.7",
  system: "M2.4 3.2h11.2v7.4H2.4zM6 13.2h4",
  upload: "M8 10.4V2.8M4.8 6 8 2.8 11.2 6M2.8 13.3h10.4",
  wrap: "M2.8 4h10.4M2.8 8h8a2.2 2.2 0 0 1 0 4.4H8.4M10 10.6 8.2 12.4 10 14.2M2.8 12.2h2.4",
} as const;

export type IconName = keyof typeof PATHS;

/** A decorative icon next to a text. It is hidden from screen readers. */
export function Icon({ name }: { readonly name: IconName }): ReactElement {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
