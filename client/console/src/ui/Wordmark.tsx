import type { ReactElement } from "react";

export function Wordmark(): ReactElement {
  return (
    <span className="wordmark">
      <svg viewBox="0 0 32 32" aria-hidden="true" focusable="false">
        <rect width="32" height="32" rx="8" />
        <path d="M8 22h7M8 16h12M8 10h16" />
        <circle cx="22.5" cy="21.5" r="2.6" />
      </svg>
      <span className="wordmark-name">jobcast</span>
    </span>
  );
}
